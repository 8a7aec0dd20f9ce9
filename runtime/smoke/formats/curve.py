"""Bus bandwidth of the all-reduce sweep against message size, as an inline drawing with logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runtime.smoke.collectives.plan import size_text

_WIDTH, _HEIGHT, _MARGIN = 720, 320, 60


def curve(result: Mapping[str, Any]) -> str:
    """A heading and an SVG; empty where fewer than two sizes were measured."""
    points = sorted(
        (operation["size"], operation["busbw_gb_s"])
        for operation in result["operations"]
        if operation["step"] == "all-reduce" and operation["done"] and operation["busbw_gb_s"] > 0
    )
    if len(points) < 2:
        return ""
    across = _Scale([size for size, _ in points], _MARGIN, _WIDTH - 20)
    upward = _Scale([rate for _, rate in points], _HEIGHT - 40, 20)
    placed = [(across.at(size), upward.at(rate)) for size, rate in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f5fa8">'
        f"<title>{size_text(size)}: {rate:.4g} GB/s</title></circle>"
        for (x, y), (size, rate) in zip(placed, points, strict=True)
    )
    return (
        "<h2>All-reduce: busbw (GB/s) against size</h2>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="busbw against size" '
        'font-size="11" font-family="system-ui, sans-serif">'
        f"{_sizes(points, across)}{_rates(upward)}"
        f'<polyline points="{line}" fill="none" stroke="#1f5fa8" stroke-width="2"/>{dots}</svg>'
    )


class _Scale:
    """Logarithms of values to pixels."""

    def __init__(self, values: list[float], start: float, end: float) -> None:
        self.low, self.high = min(values), max(values)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Where a value lies; in the middle where all are equal."""
        if self.low == self.high:
            return (self._start + self._end) / 2
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self._start + share * (self._end - self._start)


def _sizes(points: list[tuple[int, float]], across: _Scale) -> str:
    every = max(1, len(points) // 7)
    return "".join(
        f'<text x="{across.at(size):.1f}" y="{_HEIGHT - 15}" text-anchor="middle">{size_text(size)}</text>'
        for size, _ in points[::every]
    )


def _rates(upward: _Scale) -> str:
    """A line at each power of ten in between, or at the ends where there is none."""
    powers = range(math.ceil(math.log10(upward.low)), math.floor(math.log10(upward.high)) + 1)
    marks = [10.0**power for power in powers] or [upward.low, upward.high]
    return "".join(
        f'<path d="M{_MARGIN} {upward.at(mark):.1f}H{_WIDTH - 20}" stroke="#ddd"/>'
        f'<text x="{_MARGIN - 6}" y="{upward.at(mark) + 4:.1f}" text-anchor="end">{mark:.3g}</text>'
        for mark in marks
    )
