"""Which nodes are measured with each other at the same time: disjoint pairs, so that nobody shares. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import permutations

Pair = tuple[str, str]


def rounds(names: Sequence[str]) -> tuple[tuple[Pair, ...], ...]:
    """Every two names meet once, nobody twice in a round: n-1 rounds, n for an odd number of names.

    The circle method: the first name stays, the others move on by one. Each pair is then measured first in
    its own direction, then in the other, so each ordered pair comes exactly once.
    """
    circle: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    made = []
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        met = zip(circle[:half], reversed(circle[half:]), strict=True)
        made.append(tuple((a, b) for a, b in met if a is not None and b is not None))
        circle.insert(1, circle.pop())
    return tuple(made)


def halves(names: Sequence[str]) -> tuple[tuple[Pair, ...], ...]:
    """Ordered pairs that are measured at once: each round there, then back."""
    return tuple(
        half
        for met in rounds(names)
        for half in (met, tuple((target, source) for source, target in met))
        if half
    )


def around(new: Collection[str], names: Sequence[str]) -> frozenset[Pair]:
    """The ordered pairs to measure where the others were proven before: of the new names, and a yardstick.

    The yardstick is one round among the others, both ways: without it a new name that is slow towards
    everyone would have nobody to be compared with.
    """
    others = [name for name in names if name not in new]
    touching = {pair for pair in permutations(names, 2) if not set(pair).isdisjoint(new)}
    compared = {pair for met in rounds(others)[:1] for a, b in met for pair in ((a, b), (b, a))}
    return frozenset(touching | compared)


def packed(pairs: Iterable[Pair]) -> tuple[tuple[Pair, ...], ...]:
    """Any ordered pairs in few groups with nobody twice in one: each goes into the first that has room."""
    groups: list[list[Pair]] = []
    for pair in pairs:
        room = next((group for group in groups if not any(set(pair) & set(other) for other in group)), None)
        if room is None:
            groups.append(room := [])
        room.append(pair)
    return tuple(tuple(group) for group in groups)
