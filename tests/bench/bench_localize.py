"""Recall and false blame of the localisation on simulated clusters, beside the pairwise two-pass method.

Usage: python -m tests.bench.bench_localize [--trials N] > table.md
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.simulated_cluster import Cluster, Fault, draw, localized, name_of, names, two_pass

SINGLE = (
    "transmit",
    "receive",
    "node",
    "compute",
    "link",
    "direction",
    "group",
    "group transmit",
    "everything",
)
SEVERAL = (
    (),
    ("link", "link"),
    ("node", "link"),
    ("direction", "compute"),
    ("transmit", "receive", "direction"),
    ("node", "link", "direction"),
)
SIZES = (4, 8, 16, 64, 256)


@dataclass(slots=True, kw_only=True)
class Score:
    """Sums over the trials of one row."""

    trials: int = 0
    faults: int = 0
    named: int = 0
    falsely_blamed: int = 0
    unclear: int = 0
    peer_named: int = 0
    peer_falsely_blamed: int = 0


def at_fault(faults: Sequence[Fault]) -> set[str]:
    """The nodes that may rightly be blamed as nodes; a link's ends are healthy."""
    return {
        node
        for fault in faults
        if fault.kind in ("transmit", "receive", "node", "compute")
        for node in fault.nodes
    }


def trial(score: Score, kinds: Sequence[str], size: int, source: random.Random) -> None:
    """One cluster, both methods."""
    nodes = names(size)
    faults = [draw(kind, nodes, source) for kind in kinds]
    cluster = Cluster(nodes=nodes, faults=faults, source=source)
    given = localized(cluster)
    wanted, said = {fault.name for fault in faults}, [name_of(verdict) for verdict in given]
    blamed = two_pass(cluster)
    score.trials += 1
    score.faults += len(wanted)
    score.named += sum(name in said for name in wanted)
    score.falsely_blamed += sum(_is_false(verdict, faults) for verdict in given if verdict.conclusive)
    score.unclear += any(not verdict.conclusive for verdict in given)
    score.peer_named += sum(
        fault.kind in ("transmit", "receive", "node", "compute") and fault.nodes[0] in blamed
        for fault in faults
    )
    score.peer_falsely_blamed += len(blamed - at_fault(faults))


def _is_false(verdict: object, faults: Sequence[Fault]) -> bool:
    """Whether a verdict names a node, a link or a group that has no fault at all."""
    kind, named = verdict.kind, set(verdict.nodes)  # type: ignore[attr-defined]
    if kind in ("link", "direction"):
        return not any(fault.kind in ("link", "direction") and set(fault.nodes) == named for fault in faults)
    if kind in ("transmit", "receive", "node", "compute"):
        return not named <= at_fault(faults)
    return not any(fault.kind == kind for fault in faults)


def main() -> None:
    """Prints a Markdown table; progress on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--trials", type=int, default=200, help="clusters of 4 to 16 nodes; fewer of larger ones"
    )
    arguments = parser.parse_args()
    print(
        "| faults put in | nodes | clusters | named | falsely blamed | unclear "
        "| two-pass: named | falsely blamed |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for kinds in (*((kind,) for kind in SINGLE), *SEVERAL):
        for size in SIZES:
            print(f"{'+'.join(kinds) or 'none'} {size}", file=sys.stderr)
            score, source = Score(), random.Random(f"{kinds} {size}")
            for _ in range(max(5, arguments.trials * 16 // max(16, size) // (4 if size == 256 else 1))):
                trial(score, kinds, size, source)
            print(row(kinds, size, score))


def row(kinds: Sequence[str], size: int, score: Score) -> str:
    """One line of the table; shares of the faults, and things blamed for nothing in each cluster."""
    cells = [
        " + ".join(kinds) or "none",
        str(size),
        str(score.trials),
        f"{score.named / score.faults:.2f}" if score.faults else "-",
        f"{score.falsely_blamed / score.trials:.3f}",
        f"{score.unclear / score.trials:.2f}",
        f"{score.peer_named / score.faults:.2f}" if score.faults else "-",
        f"{score.peer_falsely_blamed / score.trials:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
