"""Clusters of numbers: faults put in, noisy measurements out, for tests and tables of the localisation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runtime.smoke.network.localize import Verdict, to_confirm, verdicts
from runtime.smoke.network.pair_schedule import Pair, halves

TYPICAL = 1e9
# Spread of a healthy pair, and the share of measurements that something else on the machine spoils.
NOISE = 0.05
SPOILT = 0.01
CONFIRMATIONS, LOOKS = 3, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is put in: kind and nodes as a verdict names them, and the share of the rate that is left."""

    kind: str
    nodes: tuple[str, ...]
    others: tuple[str, ...] = ()
    share: float

    @property
    def name(self) -> tuple[str, frozenset[frozenset[str]] | tuple[str, ...]]:
        """The same for a link, or a way between groups, whichever end comes first."""
        if self.kind == "link":
            return self.kind, frozenset({frozenset(self.nodes)})
        if self.kind == "group":
            return self.kind, frozenset({frozenset(self.nodes), frozenset(self.others)})
        return self.kind, self.nodes


def name_of(verdict: Verdict) -> object:
    """A verdict, comparable with a fault."""
    return Fault(kind=verdict.kind, nodes=verdict.nodes, others=verdict.others, share=0).name


@dataclass(slots=True, kw_only=True)
class Cluster:
    """Nodes with faults, measured with noise from a seeded source."""

    nodes: Sequence[str]
    faults: Sequence[Fault]
    source: random.Random
    shares: dict[Pair, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fault in self.faults:
            for pair in _touched(fault, self.nodes):
                self.shares[pair] = min(fault.share, self.shares.get(pair, 1.0))

    def measure(self, pair: Pair) -> float:
        """Bytes in a second of one ordered pair, this time."""
        rate = TYPICAL * self.shares.get(pair, 1.0) * max(0.1, self.source.gauss(1.0, NOISE))
        return rate * self.source.uniform(0.1, 0.7) if self.source.random() < SPOILT else rate

    def compute(self) -> dict[str, float]:
        """What each node's processor does."""
        weak = {fault.nodes[0]: fault.share for fault in self.faults if fault.kind == "compute"}
        return {node: weak.get(node, 1.0) * self.source.gauss(1.0, NOISE) for node in self.nodes}


def _touched(fault: Fault, nodes: Sequence[str]) -> Iterable[Pair]:
    first, others = fault.nodes[0], [node for node in nodes if node != fault.nodes[0]]
    out, back = [(first, other) for other in others], [(other, first) for other in others]
    crossing = [(a, b) for a in fault.nodes for b in fault.others]
    touched: Mapping[str, Iterable[Pair]] = {
        "transmit": out,
        "receive": back,
        "node": [*out, *back],
        "compute": [*out, *back],
        "direction": [fault.nodes],  # type: ignore[list-item]
        "link": [fault.nodes, fault.nodes[::-1]],  # type: ignore[list-item]
        "group": [*crossing, *((b, a) for a, b in crossing)],
        "group transmit": crossing,
        "everything": [(a, b) for a in nodes for b in nodes if a != b],
    }
    return touched[fault.kind]


def names(count: int) -> tuple[str, ...]:
    """Node names whose order is that of their numbers."""
    return tuple(f"te{number:03d}" for number in range(1, count + 1))


def draw(kind: str, nodes: Sequence[str], source: random.Random) -> Fault:
    """A random fault of a kind that leaves 10 to 50 % of the rate."""
    share = source.uniform(0.1, 0.5)
    if kind.startswith("group"):
        group = source.sample(list(nodes), source.randint(2, len(nodes) // 2))
        others = tuple(sorted(set(nodes) - set(group)))
        return Fault(kind=kind, nodes=tuple(sorted(group)), others=others, share=share)
    if kind == "everything":
        return Fault(kind=kind, nodes=tuple(nodes), share=share)
    count = 2 if kind in ("link", "direction") else 1
    return Fault(kind=kind, nodes=tuple(source.sample(list(nodes), count)), share=share)


def localized(cluster: Cluster) -> tuple[Verdict, ...]:
    """What the smoke test does: every ordered pair once, what looks slow again, then the verdicts."""
    rates = {pair: cluster.measure(pair) for half in halves(cluster.nodes) for pair in half}
    compute = cluster.compute()
    times: Counter[Pair] = Counter()
    for _ in range(LOOKS):
        suspicious = to_confirm(verdicts(rates, compute=compute, ceiling=TYPICAL), len(cluster.nodes))
        again = [pair for pair in suspicious if times[pair] < CONFIRMATIONS]
        if not again:
            break
        for pair in again:
            rates[pair] = max(rates[pair], cluster.measure(pair))
            times[pair] += 1
    return verdicts(rates, compute=compute, ceiling=TYPICAL)


def two_pass(cluster: Cluster, *, least: float = 0.75 * TYPICAL) -> set[str]:
    """The pairwise method of the public health scanners: random pairs, then suspects beside passed nodes.

    A pair passes when both directions do (they run a collective over the two). Nodes that fail twice are bad.
    """
    shuffled = list(cluster.nodes)
    cluster.source.shuffle(shuffled)
    pairs = list(zip(shuffled[::2], shuffled[1::2], strict=False))
    passed = {node for a, b in pairs if _both(cluster, a, b) >= least for node in (a, b)}
    suspects = sorted(set(cluster.nodes) - passed)
    if not passed:
        return set(suspects)
    partners = cluster.source.choices(sorted(passed), k=len(suspects))
    retried = zip(suspects, partners, strict=True)
    return {suspect for suspect, partner in retried if _both(cluster, suspect, partner) < least}


def _both(cluster: Cluster, a: str, b: str) -> float:
    return min(cluster.measure((a, b)), cluster.measure((b, a)))
