"""What a check says is wrong, in every stage of the smoke test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: which check saw it, at which nodes and ranks, what it is, what to do.

    `conclusive` is False when the finding names everyone because nobody stands out. `where` says more than
    the hosts do, where there is more to say: `te3 transmit`, `te1 -> te2`.
    """

    check: str
    hosts: tuple[str, ...]
    ranks: tuple[int, ...]
    found: str
    fix: str
    conclusive: bool = True
    where: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.found}. {self.fix}"


def of_node(check: str, host: str, ranks: tuple[int, ...], found: str, fix: str) -> Finding:
    """What speaks against one node, which holds these ranks."""
    found = f"{host} ({ranks_text(ranks)}): {found}"
    return Finding(check=check, hosts=(host,), ranks=ranks, found=found, fix=fix)


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 2` or `ranks 2-3`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {ranks[0]}-{ranks[-1]}" if ranks else "no rank"
