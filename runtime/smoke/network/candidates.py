"""Who could explain slow pairs: nodes that send or receive slowly, and groups behind a slow way. Pure.

The model is that of a network without congestion: a pair carries the least of what its sender, its receiver,
its link and the way between their groups can. So a slow sender is slow towards everyone, and one normal pair
clears it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.smoke.network.pair_schedule import Pair

TRANSMIT, RECEIVE, GROUP = "transmit", "receive", "group"
# With a single pair nobody can tell the sender from the receiver or the link.
_FEWEST_PAIRS = 2
# A pair below this share of the best one of its suspect has another fault besides.
_SAME_FAULT_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One thing that would be slow, and the slow pairs that it explains; a group names its other side too."""

    kind: str
    nodes: tuple[str, ...]
    others: tuple[str, ...]
    explains: frozenset[Pair]


def suspects(
    rates: Mapping[Pair, float], slow: Collection[Pair], unknown: Collection[Pair] = ()
) -> tuple[Suspect, ...]:
    """Everyone of whom no measured pair is normal.

    Pairs that are `unknown` are slow with an excuse: they accuse nobody, and clear nobody whose slow pairs
    are about as slow.
    """
    sent: dict[str, list[Pair]] = {}
    received: dict[str, list[Pair]] = {}
    for pair in rates:
        sent.setdefault(pair[0], []).append(pair)
        received.setdefault(pair[1], []).append(pair)
    found = []
    for kind, by_node in ((TRANSMIT, sent), (RECEIVE, received)):
        for node, pairs in by_node.items():
            own = [pair for pair in pairs if pair in slow]
            alike = [pair for pair in pairs if pair in unknown and as_slow(rates, pair, own)]
            if len(own) >= _FEWEST_PAIRS and len(own) + len(alike) == len(pairs):
                explained = _explained(own, rates)
                found.append(Suspect(kind=kind, nodes=(node,), others=(), explains=explained))
    return (*found, *_groups(rates, slow))


def as_slow(rates: Mapping[Pair, float], pair: Pair, slow: Sequence[Pair]) -> bool:
    """Whether a pair is about as slow as the best of some slow ones."""
    return any(_SAME_FAULT_SHARE * rates[pair] <= rates[other] for other in slow)


def _explained(pairs: Sequence[Pair], rates: Mapping[Pair, float]) -> frozenset[Pair]:
    """Those about as slow as the best of them: the best one shows what the suspect can do."""
    best = max(rates[pair] for pair in pairs)
    return frozenset(pair for pair in pairs if rates[pair] >= _SAME_FAULT_SHARE * best)


def _groups(rates: Mapping[Pair, float], slow: Collection[Pair]) -> Iterator[Suspect]:
    """Groups of nodes that are well among themselves and slow towards all other groups.

    They are the strongly connected components of the normal pairs; with two of them the smaller is named.
    """
    nodes = sorted({node for pair in rates for node in pair})
    normal: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in rates:
        if (source, target) not in slow:
            normal[source].append(target)
    groups = sorted(
        (group for group in components(normal) if len(group) > 1), key=lambda group: (len(group), group)
    )
    if len(groups) == 2:
        groups_named, everyone = groups[:1], groups
    else:
        groups_named = everyone = groups
    for group in groups_named:
        others = [node for other in everyone if other is not group for node in other]
        yield from _ways(group, others, rates, slow)


def _ways(
    group: Sequence[str], others: Sequence[str], rates: Mapping[Pair, float], slow: Collection[Pair]
) -> Iterator[Suspect]:
    """The way out of a group and the way in, where every pair on it is slow."""
    out = [(a, b) for a in group for b in others if (a, b) in rates]
    back = [(b, a) for a in group for b in others if (b, a) in rates]
    bad = [way for way in (out, back) if len(way) >= _FEWEST_PAIRS and all(pair in slow for pair in way)]
    if not bad:
        return
    explained = frozenset(pair for way in bad for pair in _explained(way, rates))
    near, far = tuple(sorted(group)), tuple(sorted(others))
    if bad == [back]:
        near, far = far, near
    kind = GROUP if len(bad) == 2 else f"{GROUP} {TRANSMIT}"
    yield Suspect(kind=kind, nodes=near, others=far, explains=explained)


def components(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Strongly connected components: nodes that reach each other. Kosaraju's two walks, without recursion."""
    backward: dict[str, list[str]] = {node: [] for node in graph}
    for node, targets in graph.items():
        for target in targets:
            backward[target].append(node)
    order = [node for tree in _walks(graph, list(graph)) for node in tree]
    return [sorted(tree) for tree in _walks(backward, order[::-1])]


def _walks(graph: Mapping[str, Sequence[str]], starts: Sequence[str]) -> list[list[str]]:
    """Depth first from each start that is still unseen; a tree's nodes in the order of leaving them."""
    seen: set[str] = set()
    trees = []
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        tree: list[str] = []
        stack = [(start, iter(graph[start]))]
        while stack:
            node, targets = stack[-1]
            target = next((target for target in targets if target not in seen), None)
            if target is None:
                tree.append(node)
                stack.pop()
            else:
                seen.add(target)
                stack.append((target, iter(graph[target])))
        trees.append(tree)
    return trees
