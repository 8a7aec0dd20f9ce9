"""What a run of a playbook has done before it touches a node, in the process of ansible-playbook."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, kw_only=True)
class RunStart:
    """`secrets`: the folder of the cluster that this run holds; None where it holds none.

    `unprinted`: words of the inventory that no output and no record may have, longest first.
    """

    done: set[str] = field(default_factory=set)
    secrets: Path | None = None
    unprinted: list[str] = field(default_factory=list)


THIS_RUN = RunStart()
