"""Lets a play go on only after what has to come before any node is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible import context
from ansible.errors import AnsibleError

from provision.roles.run_start import THIS_RUN

LISTINGS = ("syntax", "listhosts", "listtasks", "listtags")


def once(hosts: str, step: str) -> str:
    """A play's hosts, where this run has done the step; a run that only lists touches no node."""
    if step in THIS_RUN.done or any(context.CLIARGS.get(flag) for flag in LISTINGS):
        return hosts
    raise AnsibleError(
        f"No node was touched. The callback before_any_node, which is to {step}, was not loaded or failed: "
        "see the warnings above, and run the ansible-playbook of this checkout's .venv."
    )


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"once": once}
