"""A result as one HTML page that loads nothing: verdicts on top, then the pairs as heat maps, then busbw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from runtime.smoke.collectives.plan import size_text

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
table { border-collapse: collapse; margin: .6em 0 1.6em; }
th, td { padding: .25em .7em; text-align: left; border: 1px solid #ddd; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.pass { color: #176639; } .fail { color: #b3151b; }
.inconclusive { color: #8a5a00; } .skipped { color: #767676; }
h1 span { text-transform: uppercase; } code { background: #f3f3f3; }
svg { max-width: 100%; height: auto; }
"""
_ORDER = ("fail", "inconclusive", "pass", "skipped")
_WIDTH, _HEIGHT, _MARGIN = 720, 320, 60


def page(result: Mapping[str, Any]) -> str:
    """The document of smoke.json as a whole page."""
    verdict = result["verdict"]
    names = ", ".join(node["name"] for node in result["nodes"])
    body = [
        f'<h1>Smoke test: <span class="{verdict}">{verdict}</span></h1>',
        f"<p>{result['world_size']} ranks on {escape(names)}; {escape(result['started'])}; "
        f"{result['seconds']:.1f} s.</p>",
        _checks(result),
        _matrix(result, "Delivered, MB/s", "bytes_per_s", lambda rate: rate / 1e6, better_is_more=True),
        _matrix(result, "Round trip, µs (p50)", "rtt_p50_s", lambda time: time * 1e6, better_is_more=False),
        curve(result),
        _operations(result),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Smoke test: {verdict}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _checks(result: Mapping[str, Any]) -> str:
    """What failed first."""
    rows = [
        f'<tr><td class="{check["verdict"]}">{check["verdict"]}</td><td>{check["id"]}</td>'
        f"<td>{escape(check['where'])}</td><td>{escape(check['evidence'])}</td><td>{escape(check['fix'])}</td></tr>"
        for check in sorted(result["checks"], key=lambda check: _ORDER.index(check["verdict"]))
    ]
    head = "".join(f"<th>{name}</th>" for name in ("verdict", "check", "where", "evidence", "fix"))
    return f"<table><tr>{head}</tr>\n" + "\n".join(rows) + "</table>"


def _matrix(
    result: Mapping[str, Any],
    title: str,
    field: str,
    scaled: Callable[[float], float],
    *,
    better_is_more: bool,
) -> str:
    """Rows send, columns receive; the colour is the share of the best pair, from red to green."""
    pairs = {(pair["source"], pair["target"]): pair for pair in result["pairs"]}
    known = [pair[field] for pair in pairs.values() if pair[field]]
    if not known:
        return ""
    names = sorted({name for pair in pairs for name in pair})
    best = max(known) if better_is_more else min(known)
    rows = []
    for source in names:
        cells = "".join(
            _cell(pairs.get((source, target)), field, scaled, best, better_is_more=better_is_more)
            for target in names
        )
        rows.append(f"<tr><th>{escape(source)}</th>{cells}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<h2>{title}</h2><table><tr><th>from \\ to</th>{head}</tr>\n" + "\n".join(rows) + "</table>"


def _cell(
    pair: Mapping[str, Any] | None,
    field: str,
    scaled: Callable[[float], float],
    best: float,
    *,
    better_is_more: bool,
) -> str:
    if pair is None:
        return "<td></td>"
    value, told = pair[field], escape(pair["error"] or f"{pair['source']} -> {pair['target']}")
    if value is None:
        return f'<td title="{told}" style="background:#b3151b;color:#fff">none</td>'
    share = (value / best if better_is_more else best / value) if value else 0.0
    colour = f"hsl({round(130 * share)} 60% 78%)"
    return f'<td class="number" title="{told}" style="background:{colour}">{scaled(value):.4g}</td>'


def _operations(result: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(operation['name'])}</td>"
        f'<td class="number">{operation["p50_seconds"] * 1e3:.3f}</td>'
        f'<td class="number">{operation["algbw_gb_s"]:.4g}</td>'
        f'<td class="number">{operation["busbw_gb_s"]:.4g}</td></tr>'
        for operation in result["operations"]
        if operation["done"]
    ]
    if not rows:
        return ""
    names = ("operation", "p50, ms", "algbw, GB/s", "busbw, GB/s")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<h2>Collectives</h2><table><tr>{head}</tr>\n" + "\n".join(rows) + "</table>"


def curve(result: Mapping[str, Any]) -> str:
    """Busbw of the all-reduce sweep on logarithmic axes; empty where fewer than two sizes were measured."""
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
