from __future__ import annotations

from runtime.smoke.budget import Budget

MIB = 1 << 20


def test_the_first_size_is_always_measured() -> None:
    assert Budget(limit_seconds=0.1).against(1 << 30) == ""


def test_a_size_that_would_not_fit_by_the_one_before_is_left_out() -> None:
    budget = Budget(limit_seconds=10.0)
    budget.spend(size=16 * MIB, round_seconds=0.2, rounds=2)

    assert budget.against(64 * MIB) == ""  # three rounds of 0.8 s
    budget.spend(size=64 * MIB, round_seconds=0.8, rounds=2)
    assert budget.against(256 * MIB) == "it would take 9.6 s, and 8.0 of 10 s are left"
    assert budget.against(1024 * MIB).startswith("it would take 38.4 s")


def test_small_messages_do_not_foretell_less_than_they_took() -> None:
    budget = Budget(limit_seconds=1.0)
    budget.spend(size=4 * MIB, round_seconds=0.5, rounds=1)

    assert budget.against(4) != ""


def test_without_a_limit_everything_is_measured() -> None:
    budget = Budget(limit_seconds=0.0)
    budget.spend(size=4, round_seconds=100.0, rounds=20)

    assert budget.against(1 << 30) == ""
