from __future__ import annotations

from runtime.smoke.collectives.plan import Budget

MIB = 1 << 20


def test_the_first_size_is_always_measured() -> None:
    assert Budget(limit_seconds=0.1, step_seconds=0.1).against(1 << 30) == ""


def test_a_size_that_would_not_fit_by_the_one_before_is_left_out() -> None:
    budget = Budget(limit_seconds=10.0, step_seconds=30.0)
    budget.spend(size=16 * MIB, seconds=0.5)

    assert budget.against(64 * MIB) == ""
    budget.spend(size=64 * MIB, seconds=2.4)
    assert budget.against(256 * MIB) == "it would take 9.6 s, and 7.1 are left of the sweep's 10 s"
    assert budget.against(1024 * MIB).startswith("it would take 38.4 s")


def test_a_size_that_would_take_too_long_for_one_step_is_left_out() -> None:
    budget = Budget(limit_seconds=60.0, step_seconds=4.0)
    budget.spend(size=64 * MIB, seconds=1.5)

    assert budget.against(256 * MIB).startswith("it would take 6.0 s, and 4.0 are left")


def test_small_messages_do_not_foretell_less_than_they_took() -> None:
    budget = Budget(limit_seconds=1.0, step_seconds=30.0)
    budget.spend(size=4 * MIB, seconds=0.6)

    assert budget.against(4) != ""


def test_without_a_limit_everything_is_measured() -> None:
    budget = Budget(limit_seconds=0.0, step_seconds=1.0)
    budget.spend(size=4, seconds=100.0)

    assert budget.against(1 << 30) == ""
