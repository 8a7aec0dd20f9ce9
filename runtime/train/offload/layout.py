"""Where each parameter's states lie in a file, and which of them are updated together: pure arithmetic."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

PAGE_BYTES = 4096  # what O_DIRECT wants offsets, lengths and addresses to be multiples of
ELEMENT_BYTES = 4  # states are fp32
PAGE_ELEMENTS = PAGE_BYTES // ELEMENT_BYTES
LARGEST_GROUP = 16 * 1024 * 1024  # elements; 64 MiB in one read saturate a disk, more only cost memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A run of elements of parameter `index`: from `start` in it, at `place` in its sub-group."""

    index: int
    start: int
    place: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubGroup:
    """Elements that travel and are updated together: whole pages from `start` of every state's file."""

    start: int
    length: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Every parameter begins on a page of its own; all counts are in elements."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    total: int
    groups: tuple[SubGroup, ...]

    @property
    def largest(self) -> int:
        """Elements of the largest sub-group."""
        return max((group.length for group in self.groups), default=0)


def whole_pages(count: int, page: int) -> int:
    """The smallest multiple of `page` that is not below `count`."""
    return -(-count // page) * page


def lay_out(sizes: Sequence[int], sub_group_size: int) -> Layout:
    """Places parameters of these numbers of elements one after the other and cuts them into sub-groups.

    A sub-group has at most `sub_group_size` elements, LARGEST_GROUP and at least one page; large parameters
    are cut, small ones share.
    """
    offsets, total = [], 0
    for size in sizes:
        offsets.append(total)
        total += whole_pages(size, PAGE_ELEMENTS)
    step = max(PAGE_ELEMENTS, min(sub_group_size, LARGEST_GROUP) // PAGE_ELEMENTS * PAGE_ELEMENTS)
    return Layout(
        offsets=tuple(offsets),
        sizes=tuple(sizes),
        total=total,
        groups=tuple(
            _group(offsets, sizes, start, min(start + step, total)) for start in range(0, total, step)
        ),
    )


def _group(offsets: Sequence[int], sizes: Sequence[int], start: int, stop: int) -> SubGroup:
    """The sub-group of the elements from `start` to `stop`."""
    parts = []
    for index in range(max(0, bisect_right(offsets, start) - 1), bisect_left(offsets, stop)):
        low, high = max(offsets[index], start), min(offsets[index] + sizes[index], stop)
        if low < high:
            parts.append(Part(index=index, start=low - offsets[index], place=low - start, length=high - low))
    return SubGroup(start=start, length=stop - start, parts=tuple(parts))
