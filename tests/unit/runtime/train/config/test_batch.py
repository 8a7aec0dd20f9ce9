"""Any sufficient two of the batch sizes give the third, exactly or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.train.config.batch import DoesNotFit, solve

SIZES = st.integers(1, 64)


@given(SIZES, SIZES, SIZES, st.sets(st.sampled_from(["total", "micro", "steps"]), max_size=1))
def test_what_is_left_out_is_found_again(micro: int, steps: int, world_size: int, left_out: set[str]) -> None:
    sizes = {"total": micro * steps * world_size, "micro": micro, "steps": steps}
    given_sizes = {name: None if name in left_out else size for name, size in sizes.items()}

    batch = solve(**given_sizes, world_size=world_size)

    assert (batch.total, batch.micro, batch.steps) == (sizes["total"], micro, steps)


@given(st.none() | SIZES, st.none() | SIZES, st.none() | SIZES, SIZES)
def test_an_answer_satisfies_the_equation_and_keeps_what_was_given(
    total: int | None, micro: int | None, steps: int | None, world_size: int
) -> None:
    try:
        batch = solve(total=total, micro=micro, steps=steps, world_size=world_size)
    except DoesNotFit as e:
        batch = None
        said = e
    if batch is None:
        assert said.found
        assert said.fix
        return
    assert batch.total == batch.micro * batch.steps * world_size
    assert total in (None, batch.total)
    assert micro in (None, batch.micro)
    assert steps in (None, batch.steps)


def test_the_nearest_sizes_that_fit_are_named() -> None:
    with pytest.raises(DoesNotFit) as caught:
        solve(total=30, micro=None, steps=2, world_size=4)

    assert caught.value.fix == "Write train_batch_size 24 or 32."
