"""Bandwidths by the definitions of nccl-tests (doc/PERFORMANCE.md): GB/s is 10^9 bytes in a second.

`algbw = S / t`; `busbw = algbw * factor`, the factor undoing what the operation sends more or less than S.
S is the tensor's size for the operations here. t is the median over the rounds, of the slowest rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from runtime.smoke.collectives.plan import PARTED

# Of any clock; a rank may say that it took none.
_LEAST_SECONDS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Time and bandwidths of one operation; `worst_rank` is the one whose median time is the longest."""

    p50_seconds: float
    worst_rank: int
    algbw_gb_s: float
    busbw_gb_s: float


def bus_factor(step: str, world_size: int) -> float:
    """What `algbw` is multiplied by: the bytes that cross each link over S, with n ranks.

    2(n-1)/n for an all-reduce, (n-1)/n where each rank keeps its own part, else 1. S of an operation that
    gives parts is what all parts have together.
    """
    if step == "all-reduce":
        return 2 * (world_size - 1) / world_size
    return (world_size - 1) / world_size if step in PARTED else 1.0


def figures(
    step: str, *, size: int, world_size: int, seconds_by_rank: Mapping[int, Sequence[float]]
) -> Figures:
    """Figures from every rank's iteration times in seconds; a barrier (size 0) has no bandwidth."""
    medians = {rank: median(seconds) for rank, seconds in seconds_by_rank.items()}
    worst = max(sorted(medians), key=medians.__getitem__)
    algbw = size / max(medians[worst], _LEAST_SECONDS) / 1e9
    return Figures(
        p50_seconds=medians[worst],
        worst_rank=worst,
        algbw_gb_s=algbw,
        busbw_gb_s=algbw * bus_factor(step, world_size),
    )
