"""What is normal among the measured pairs of one run, and which pairs fall short of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median, median_high

from runtime.smoke.network.pair_schedule import Pair

# Below this share of what is typical a pair may be slow; the spread of the peers can only lower it.
_SLOW_SHARE = 0.65
# However wide the peers scatter, less than this share is never normal.
_NEVER_NORMAL_SHARE = 0.3
_SPREADS = 3.0
# What belongs to the bulk of the peers, of which typical value and spread are taken.
_BULK_SHARE = 0.6
# Share of what the hardware promises below which the whole network is called slow.
_CEILING_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The peers of one run: typical value, spread (1.4826 MAD) and the least that is still normal."""

    typical: float
    spread: float
    least: float

    def __str__(self) -> str:
        return (
            f"{rate_text(self.typical)} (+-{self.spread / self.typical:.0%})" if self.typical else "nothing"
        )


def expectation(values: Collection[float], *, bests: Collection[float]) -> Expectation:
    """From all values and the best value of each party.

    The best ones are robust: a node has to be slow towards everyone before its best is, so half of the
    nodes may be slow, and far more than half of the pairs.
    """
    around = median_high(bests)
    bulk = [value for value in values if value >= _BULK_SHARE * around]
    typical = median(bulk)
    spread = 1.4826 * median(abs(value - typical) for value in bulk)
    least = max(_NEVER_NORMAL_SHARE * typical, min(_SLOW_SHARE * typical, typical - _SPREADS * spread))
    return Expectation(typical=typical, spread=spread, least=least)


def of_pairs(rates: Mapping[Pair, float]) -> Expectation:
    """What a pair of this run carries; each node's best sending and best receiving count once."""
    sending: dict[str, float] = {}
    receiving: dict[str, float] = {}
    for (source, target), rate in rates.items():
        sending[source] = max(rate, sending.get(source, 0.0))
        receiving[target] = max(rate, receiving.get(target, 0.0))
    return expectation(rates.values(), bests=[*sending.values(), *receiving.values()])


def slow_pairs(rates: Mapping[Pair, float]) -> frozenset[Pair]:
    """The pairs that carry less than is normal in this run."""
    if not rates:
        return frozenset()
    least = of_pairs(rates).least
    return frozenset(pair for pair, rate in rates.items() if rate < least)


def slow_nodes(compute: Mapping[str, float]) -> frozenset[str]:
    """The nodes that compute less than is normal in this run."""
    if not compute:
        return frozenset()
    least = expectation(compute.values(), bests=compute.values()).least
    return frozenset(node for node, rate in compute.items() if rate < least)


def below_ceiling(typical: float, ceiling: float | None) -> bool:
    """Whether even the typical pair is far below what the hardware promises, where that is known."""
    return ceiling is not None and typical < _CEILING_SHARE * ceiling


def rate_text(rate: float) -> str:
    """Bytes in a second for a person, in powers of ten."""
    for unit, name in ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")):
        if rate >= unit:
            return f"{rate / unit:.3g} {name}"
    return f"{rate:.0f} B/s"
