"""Every element of every parameter is in exactly one part, and parts travel in whole pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.train.offload.layout import LARGEST_GROUP, PAGE_ELEMENTS, Part, lay_out

SIZES = st.lists(st.integers(0, 5000), max_size=12)


@given(sizes=SIZES, sub_group_size=st.integers(1, 9000))
def test_parts_cover_every_parameter_once(sizes: list[int], sub_group_size: int) -> None:
    layout = lay_out(sizes, sub_group_size)

    covered = {
        (part.index, part.start + step): group.start + part.place + step
        for group in layout.groups
        for part in group.parts
        for step in range(part.length)
    }
    assert covered == {
        (index, element): layout.offsets[index] + element
        for index, size in enumerate(sizes)
        for element in range(size)
    }
    assert sum(part.length for group in layout.groups for part in group.parts) == sum(sizes)


@given(sizes=SIZES, sub_group_size=st.integers(1, 9000))
def test_sub_groups_are_whole_pages_and_not_larger_than_asked(sizes: list[int], sub_group_size: int) -> None:
    layout = lay_out(sizes, sub_group_size)

    for group in layout.groups:
        assert group.start % PAGE_ELEMENTS == 0
        assert group.length % PAGE_ELEMENTS == 0
        assert group.length <= max(sub_group_size, PAGE_ELEMENTS)
        assert all(part.place + part.length <= group.length for part in group.parts)


def test_a_large_parameter_is_cut_and_small_ones_share() -> None:
    layout = lay_out([3000, 10, 20], 2048)

    assert layout.offsets == (0, 3072, 4096)
    assert [group.parts for group in layout.groups] == [
        (Part(index=0, start=0, place=0, length=2048),),
        (Part(index=0, start=2048, place=0, length=952), Part(index=1, start=0, place=1024, length=10)),
        (Part(index=2, start=0, place=0, length=20),),
    ]


@pytest.mark.parametrize(("asked", "largest"), [(10**9, LARGEST_GROUP), (1, PAGE_ELEMENTS)])
def test_a_sub_group_has_bounds(asked: int, largest: int) -> None:
    assert lay_out([2 * LARGEST_GROUP if asked > 1 else 5000], asked).largest == largest
