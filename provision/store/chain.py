"""Who gets what from whom: an order of the nodes for each lane. Pure.

In a chain every node sends each chunk once, so that the source sends the tree once whatever the number of
nodes. From 8 nodes on there are two lanes of half the chunks each, which go through the nodes in opposite
directions: a node that is lost holds up one half for each neighbour, and nobody sends more than the tree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

TWO_LANES_FROM = 8


def lanes_for(count: int) -> int:
    """Of so many nodes."""
    return 2 if count >= TWO_LANES_FROM else 1


def lanes_of(nodes: Sequence[str], *, whole: Collection[str] = ()) -> list[list[str]]:
    """The order of each lane; who has the tree already comes first."""
    first = [node for node in nodes if node in whole]
    others = [node for node in nodes if node not in whole]
    return [[*first, *others], [*first, *others[::-1]]][: lanes_for(len(nodes))]


def asked_by(node: str, lanes: Sequence[Sequence[str]], *, whole: Collection[str] = ()) -> list[list[str]]:
    """Whom a node asks in each lane: first any of `whole`, then its predecessor and those before it.

    Nobody asks one behind him that is not whole: both would wait for each other.
    """
    asked = []
    for lane in lanes:
        before = list(lane[: lane.index(node)])[::-1]
        behind = [other for other in lane[lane.index(node) + 1 :] if other in whole]
        near = [other for other in before if other in whole]
        asked.append([*near, *behind, *(other for other in before if other not in whole)])
    return asked
