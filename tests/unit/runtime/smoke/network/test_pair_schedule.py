"""Who is measured with whom, for any number of nodes."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.smoke.network.pair_schedule import around, halves, packed, rounds

NAMES = st.integers(0, 40).map(lambda count: tuple(f"te{number}" for number in range(count)))


@settings(deadline=None)
@given(NAMES)
def test_every_ordered_pair_comes_once_and_no_node_twice_at_once(names: tuple[str, ...]) -> None:
    steps = halves(names)

    pairs = [pair for step in steps for pair in step]
    assert sorted(pairs) == sorted(permutations(names, 2))
    for step in steps:
        busy = [name for pair in step for name in pair]
        assert len(busy) == len(set(busy))


@settings(deadline=None)
@given(NAMES.filter(len))
def test_there_are_as_few_rounds_as_can_be(names: tuple[str, ...]) -> None:
    assert len(rounds(names)) == len(names) - 1 + len(names) % 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("ghijkl")), unique=True))
def test_any_pairs_are_packed_without_losing_one_or_sharing_a_node(pairs: list[tuple[str, str]]) -> None:
    groups = packed(pairs)

    assert sorted(pair for group in groups for pair in group) == sorted(pairs)
    for group in groups:
        busy = [name for pair in group for name in pair]
        assert len(busy) == len(set(busy))


@settings(deadline=None)
@given(NAMES.filter(len), st.integers(0, 3))
def test_around_new_names_every_pair_of_theirs_comes_and_each_other_name_is_compared_once(
    names: tuple[str, ...], count: int
) -> None:
    new, others = names[:count], names[count:]

    pairs = around(new, names)

    theirs = {pair for pair in permutations(names, 2) if set(pair) & set(new)}
    compared = pairs - theirs
    assert theirs <= pairs
    assert {pair[::-1] for pair in compared} == compared
    assert len(compared) == len(others) // 2 * 2
    assert len({name for pair in compared for name in pair}) == len(compared)
