"""When a clock is wrong."""

from __future__ import annotations

import pytest

from runtime.smoke.host.registry import Clock, judge
from tests.unit.runtime.smoke.host.cluster import NAMES, nodes


@pytest.mark.parametrize(
    ("offset", "error", "named"),
    [(2.0, 0.01, True), (-2.0, 0.01, True), (0.4, 0.01, False), (2.0, 1.8, False)],
)
def test_a_clock_is_wrong_only_beyond_what_the_way_explains(offset: float, error: float, named: bool) -> None:
    clocks = {host: Clock(offset=0.001, error=0.01) for host in NAMES} | {
        "te3": Clock(offset=offset, error=error)
    }

    said = judge(nodes(clocks=clocks))

    assert [one.hosts for one in said] == ([("te3",)] if named else [])
    assert all(("ahead" if offset > 0 else "behind") in one.found for one in said)
