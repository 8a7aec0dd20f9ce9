"""Model state of each contestant against ZeRO's definition, as a drawing for a page or a document."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.bench.contest import Row

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 340, 44, 56, 44
_COLOURS = ("#1f5fa8", "#4f8fd0", "#9dc3ea", "#8a8a8a", "#c9772e", "#e0a96d", "#5b8c5a", "#a3c9a2", "#7d5ba6")


def plot(rows: Sequence[Row]) -> str:
    """An SVG: bars for what was measured, grouped by ranks, and a red line for the definition."""
    counts = sorted({row.ranks for row in rows})
    kinds = list(dict.fromkeys(str(row.contestant) for row in rows))
    top = max(max(r.state_bytes_per_parameter, r.expected_bytes_per_parameter or 0.0) for r in rows) * 1.05
    group = (_WIDTH - _LEFT - 10) / len(counts)
    bar = group * 0.8 / len(kinds)
    drawn = [_axis(top), _legend(kinds)]
    for row in rows:
        number = kinds.index(str(row.contestant))
        x = _LEFT + counts.index(row.ranks) * group + group * 0.1 + number * bar
        drawn.append(_bar(row, x, bar, top, _COLOURS[number % len(_COLOURS)]))
    for number, count in enumerate(counts):
        x = _LEFT + (number + 0.5) * group
        ranks = "1 rank" if count == 1 else f"{count} ranks"
        drawn.append(f'<text x="{x:.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{ranks}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        'role="img" aria-label="bytes of model state for each parameter" '
        'font-size="11" font-family="system-ui, sans-serif">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>{"".join(drawn)}</svg>\n'
    )


def _up(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP)


def _bar(row: Row, x: float, width: float, top: float, colour: str) -> str:
    held, wanted = row.state_bytes_per_parameter, row.expected_bytes_per_parameter
    y = _up(held, top)
    title = f"{row.contestant}, {row.ranks} ranks: {held:.2f}" + (
        f", definition {wanted:.2f}" if wanted else ""
    )
    drawn = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width * 0.86:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}" '
        f'fill="{colour}"><title>{title}</title></rect>'
        f'<text x="{x + width * 0.43:.1f}" y="{y - 5:.1f}" text-anchor="middle">{held:.2f}</text>'
    )
    if wanted is None:
        return drawn
    return (
        drawn + f'<path d="M{x - 2:.1f} {_up(wanted, top):.1f}h{width:.1f}" stroke="#c00" stroke-width="2"/>'
    )


def _axis(top: float) -> str:
    marks = [mark for mark in range(0, 65, 4) if mark <= top]
    return "".join(
        f'<path d="M{_LEFT} {_up(mark, top):.1f}H{_WIDTH - 10}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 6}" y="{_up(mark, top) + 4:.1f}" text-anchor="end">{mark}</text>'
        for mark in marks
    )


def _legend(kinds: Sequence[str]) -> str:
    about = "Model state, bytes for each parameter; red: the definition"
    each = (_WIDTH - 20) / max(len(kinds), 4)
    return f'<text x="10" y="16" font-weight="600">{about}</text>' + "".join(
        f'<rect x="{10 + number * each:.1f}" y="26" width="10" height="10" '
        f'fill="{_COLOURS[number % len(_COLOURS)]}"/>'
        f'<text x="{24 + number * each:.1f}" y="35">{kind}</text>'
        for number, kind in enumerate(kinds)
    )
