"""From directed matrices of one run to one verdict for each fault, or to the next test. Pure.

Parsimony decides: a node or a group is named only where it explains two slow pairs that nothing else of its
kind explains (links would take two faults for that); what is left are links and single directions. Where
several explanations are equally short nobody is blamed, and the verdict says what to measure next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.smoke.network import matrix
from runtime.smoke.network.candidates import GROUP, RECEIVE, TRANSMIT, Suspect, as_slow, suspects
from runtime.smoke.network.pair_schedule import Pair

NODE, COMPUTE, LINK, DIRECTION, EVERYTHING, UNCLEAR = (
    "node",
    "compute",
    "link",
    "direction",
    "everything",
    "unclear",
)
# To blame a node or a group has to save two faults: one it is itself, one more makes it the shorter account.
_LEAST_GAIN = 2
# Of a verdict on a node or a group so many pairs are measured again: one normal pair clears it.
_PAIRS_TO_CONFIRM = 8
# Disjoint pairs are measured at once, so a few for each node take the time of a few pairs.
_CONFIRMED_PER_NODE = 4
_FEWEST_TO_CONFIRM = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One fault. `nodes` are at fault (two for a link, in order for a direction), `pairs` what shows it.

    An unclear verdict names in `nodes` those among whom the fault is; none of them is blamed.
    """

    kind: str
    nodes: tuple[str, ...]
    others: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def conclusive(self) -> bool:
        """Whether it blames."""
        return self.kind != UNCLEAR


def verdicts(
    rates: Mapping[Pair, float],
    *,
    compute: Mapping[str, float],
    ceiling: float | None = None,
    excused: Collection[Pair] = (),
) -> tuple[Verdict, ...]:
    """All faults of a run, from bytes in a second of each measured pair and of each node's processor.

    `ceiling` is what the hardware promises for a pair, None where nothing is known of it. Pairs that are
    `excused` accuse nobody, however slow.
    """
    weak = sorted(matrix.slow_nodes(compute))
    found = [Verdict(kind=COMPUTE, nodes=(node,)) for node in weak]
    # A processor that is slow makes its node's network slow as well: one fault, not two.
    found += [
        verdict
        for verdict in _of_pairs(rates, excused)
        if verdict.kind not in (TRANSMIT, RECEIVE, NODE) or verdict.nodes[0] not in weak
    ]
    if rates and matrix.below_ceiling(matrix.of_pairs(rates).typical, ceiling):
        everyone = tuple(sorted({node for pair in rates for node in pair}))
        found.append(Verdict(kind=EVERYTHING, nodes=everyone))
    return tuple(found)


def _of_pairs(rates: Mapping[Pair, float], excused: Collection[Pair]) -> Iterator[Verdict]:
    every = matrix.slow_pairs(rates)
    slow, unknown = every.difference(excused), every.intersection(excused)
    blamed, tangled, left = _cover(suspects(rates, slow, unknown), slow)
    yield from _merged(blamed)
    if tangled:
        nodes = tuple(sorted({node for suspect in tangled for node in (*suspect.nodes, *suspect.others)}))
        pairs = sorted({pair for suspect in tangled for pair in suspect.explains})
        yield Verdict(kind=UNCLEAR, nodes=nodes, pairs=tuple(pairs))
    both_ways = {pair[::-1] for pair in left if pair[::-1] in unknown and as_slow(rates, pair[::-1], [pair])}
    yield from _single(left | both_ways)


def _cover(
    suspected: Sequence[Suspect], slow: frozenset[Pair]
) -> tuple[list[Suspect], list[Suspect], frozenset[Pair]]:
    """Who must be at fault, who may be, and the pairs that neither explains."""
    blamed: list[Suspect] = []
    pool, left = list(suspected), slow
    while pool:
        counts = Counter(pair for suspect in pool for pair in suspect.explains & left)
        alone = {pair for pair in left if not counts[pair]}
        needed = [
            s for s in pool if _gain(s, {pair for pair in left if counts[pair] == 1}, alone) >= _LEAST_GAIN
        ]
        left = left.difference(*(suspect.explains for suspect in needed))
        blamed += needed
        kept = [
            s for s in pool if s not in needed and len(s.explains & left) > 1 and _gain(s, left, alone) > 0
        ]
        if len(kept) == len(pool):
            break
        pool = kept
    return blamed, pool, left.difference(*(suspect.explains for suspect in pool))


def _gain(suspect: Suspect, pairs: Collection[Pair], alone: Collection[Pair]) -> int:
    """How many single faults it saves: a link that is slow the other way as well remains one either way."""
    return sum(pair in pairs and pair[::-1] not in alone for pair in suspect.explains)


def _merged(blamed: Sequence[Suspect]) -> Iterator[Verdict]:
    """A node that is slow both ways is one fault."""
    both = {s.nodes for s in blamed if s.kind == TRANSMIT} & {s.nodes for s in blamed if s.kind == RECEIVE}
    for suspect in blamed:
        pairs = tuple(sorted(suspect.explains))
        if suspect.nodes not in both or suspect.kind not in (TRANSMIT, RECEIVE):
            yield Verdict(kind=suspect.kind, nodes=suspect.nodes, others=suspect.others, pairs=pairs)
        elif suspect.kind == TRANSMIT:
            back = tuple(sorted((target, source) for source, target in suspect.explains))
            yield Verdict(kind=NODE, nodes=suspect.nodes, pairs=(*pairs, *back))


def _single(left: frozenset[Pair]) -> Iterator[Verdict]:
    """A link where both directions are left, else a direction."""
    for source, target in sorted(left):
        if (target, source) not in left:
            yield Verdict(kind=DIRECTION, nodes=(source, target), pairs=((source, target),))
        elif source < target:
            pairs = ((source, target), (target, source))
            yield Verdict(kind=LINK, nodes=(source, target), pairs=pairs)


def to_confirm(found: Sequence[Verdict], nodes: int) -> tuple[Pair, ...]:
    """The pairs to measure again before anyone is blamed: load slows a pair, and never speeds it up."""
    wanted: dict[Pair, None] = {}
    for verdict in found:
        single = verdict.kind in (LINK, DIRECTION)
        pairs = verdict.pairs if single else _spread(verdict.pairs)
        wanted |= dict.fromkeys(pairs)
    return tuple(wanted)[: max(_FEWEST_TO_CONFIRM, _CONFIRMED_PER_NODE * nodes)]


def _spread(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """A few of many, far apart."""
    step = max(1, len(pairs) // _PAIRS_TO_CONFIRM)
    return pairs[::step][:_PAIRS_TO_CONFIRM]


def where(verdict: Verdict) -> str:
    """The place of a fault in a few words."""
    names = ", ".join(verdict.nodes)
    return {
        TRANSMIT: f"{names} transmit",
        RECEIVE: f"{names} receive",
        COMPUTE: f"{names} compute",
        LINK: " <-> ".join(verdict.nodes),
        DIRECTION: " -> ".join(verdict.nodes),
        GROUP: f"{names} <-> {', '.join(verdict.others)}",
        f"{GROUP} {TRANSMIT}": f"{names} -> {', '.join(verdict.others)}",
        EVERYTHING: "every pair",
        UNCLEAR: f"among {names}",
    }.get(verdict.kind, names)
