"""Test data in which every element depends on rank, offset and iteration, and sums stay exact.

Element i of rank r in iteration t is `(64 r + t + i) mod 8191`, a window into one periodic base. 8191 is
prime, so no two power-of-two chunks hold the same data: swapped, stale or shifted buffers show. Values are
below 2^13, so a float32 sum is exact up to 2048 ranks, whatever the order of the additions. (Sums of ones, as
in common scripts, show none of these.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PERIOD = 8191
ITERATIONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Elements that are not what they must be: how many, and the first of them."""

    count: int
    index: int
    expected: float
    found: float


class Pattern:
    """Data for up to `elements` float32 values on each of `world_size` ranks, on one device."""

    def __init__(self, *, elements: int, world_size: int, device: object) -> None:
        import torch

        length = elements + ITERATIONS * (world_size + 1)
        base = torch.arange(length, dtype=torch.int32, device=device).remainder_(PERIOD)  # type: ignore[call-overload]
        self._base: Tensor = base.to(torch.float32)
        window = elements + ITERATIONS
        self._sums: Tensor = self._base[:window].clone()
        for rank in range(1, world_size):
            self._sums += self._base[ITERATIONS * rank : ITERATIONS * rank + window]

    def of(self, rank: int, iteration: int, elements: int) -> Tensor:
        """What a rank contributes; a view, not to be written to."""
        start = ITERATIONS * rank + iteration % ITERATIONS
        return self._base[start : start + elements]

    def sum(self, iteration: int, elements: int) -> Tensor:
        """The sum of all ranks' contributions; a view, not to be written to."""
        start = iteration % ITERATIONS
        return self._sums[start : start + elements]


def compare(found: Tensor, expected: Tensor) -> Wrong | None:
    """Element for element; None when all are equal."""
    import torch

    if torch.equal(found, expected):
        return None
    wrong = (found != expected).nonzero().flatten()
    index = int(wrong[0])
    return Wrong(
        count=int(wrong.numel()), index=index, expected=float(expected[index]), found=float(found[index])
    )
