"""What roles ask of this run and of the controller to tell whether they would change anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from provision.commands.folders import user_cache
from provision.environments import runtime_wheel
from provision.roles.settled import THIS_RUN


def are_settled(nodes: Sequence[str], role: str) -> bool:
    """Whether a role would change nothing on these nodes, by the look at the start; never after a change.

    The process of ansible-playbook knows it, and works out `when` of a `meta` task: no process is forked.
    """
    return THIS_RUN.are_settled(nodes, role)


@cache
def ready_wheel(source: str) -> dict[str, str]:
    """The wheel of a checkout; empty texts where it is still to be built.

    Read once by each process that Ansible forks for a task: every source is hashed for it.
    """
    made = runtime_wheel.ready(Path(source), cache=user_cache() / "wheel")
    if made is None:
        return {"path": "", "sha256": "", "content": ""}
    return {"path": str(made.path), "sha256": made.sha256, "content": made.content}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"are_settled": are_settled, "ready_wheel": ready_wheel}
