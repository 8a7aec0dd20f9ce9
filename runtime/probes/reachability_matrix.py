"""From the matrix of which node reached which to the node, or the ordered pair, at fault: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One ordered pair: the time of connecting and of one round trip in seconds, or the error."""

    source: str
    target: str
    error: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the bytes came back as they went."""
        return not self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A node, or an ordered pair where `target` is set, that explains failures; `found` in words."""

    host: str
    target: str
    found: str


def blame(hosts: Sequence[str], reached: Sequence[Reach]) -> tuple[Blame, ...]:
    """From the matrix of ordered pairs to nodes and, for what they do not explain, pairs.

    A node is blamed when most of its remaining partners fail with it (peeling: the worst node first); with
    two nodes no side can be named, so the pair is.
    """
    failed = [reach for reach in reached if not reach.ok]
    blamed: list[Blame] = []
    remaining = set(hosts)
    while failed:
        partners = {host: _partners(host, failed) for host in remaining}
        worst = max(sorted(remaining), key=lambda host: len(partners[host]))
        if len(remaining) < 3 or len(partners[worst]) <= (len(remaining) - 1) / 2:
            break
        blamed.append(Blame(host=worst, target="", found=_node_words(worst, partners[worst], failed)))
        failed = [reach for reach in failed if worst not in (reach.source, reach.target)]
        remaining.discard(worst)
    blamed += [
        Blame(host=reach.source, target=reach.target, found=f"cannot reach {reach.target}: {reach.error}")
        for reach in failed
    ]
    return tuple(blamed)


def between(launcher: str, silent: str, knocked: Sequence[Reach]) -> tuple[str, ...]:
    """The nodes that reach a node which the launching one does not: then it is the way between these two."""
    own = [one for one in knocked if (one.source, one.target) == (launcher, silent)]
    if not own or own[0].ok:
        return ()
    return tuple(one.source for one in knocked if one.target == silent and one.ok)


def _partners(host: str, failed: Sequence[Reach]) -> set[str]:
    return {r.target for r in failed if r.source == host} | {r.source for r in failed if r.target == host}


def _node_words(host: str, partners: set[str], failed: Sequence[Reach]) -> str:
    inbound = sorted({r.source for r in failed if r.target == host})
    outbound = sorted({r.target for r in failed if r.source == host})
    errors = sorted({r.error for r in failed if host in (r.source, r.target)})
    parts = []
    if inbound:
        parts.append(f"{', '.join(inbound)} cannot reach its ports")
    if outbound:
        parts.append(f"it cannot reach those of {', '.join(outbound)}")
    return f"{' and '.join(parts)} ({'; '.join(errors)})"
