"""A processor is slow when it stays slow for seconds."""

from __future__ import annotations

import pytest

from runtime.smoke.ask import lasting
from runtime.smoke.network.matrix import slow_nodes

QUIET = {"te1": 1e9, "te2": 1.01e9, "te3": 0.99e9, "te4": 1e9}


def measured(busy_seconds: float) -> tuple[dict[str, float], float]:
    """The rates of a cluster whose te2 is busy for so long, and how long it was asked."""
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    def rate(host: str) -> float:
        return QUIET[host] / (3 if host == "te2" and now < busy_seconds else 1)

    first = {host: rate(host) for host in QUIET}
    return lasting(first, slow=slow_nodes, rate=float, again=rate, pause=pause), now


@pytest.mark.parametrize(("burst", "asked"), [(1.5, 1.5), (6.0, 7.5)])
def test_a_burst_of_seconds_accuses_nobody(burst: float, asked: float) -> None:
    rates, seconds = measured(burst)

    assert (slow_nodes(rates), seconds) == (frozenset(), asked)


def test_a_processor_that_stays_slow_is_found() -> None:
    rates, _ = measured(1e9)

    assert slow_nodes(rates) == {"te2"}


def test_a_healthy_cluster_does_not_wait() -> None:
    assert measured(0.0) == (QUIET, 0.0)
