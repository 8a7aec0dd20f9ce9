"""Where the elements of a parameter are among the ranks' flat tensors: pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Elements `start` to `stop` of the flat tensor of a rank."""

    rank: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A parameter's pieces, in order, in the flat tensors number `flat` of the ranks."""

    shape: Shape
    flat: int
    pieces: tuple[Piece, ...]


def in_ranges(
    groups: Sequence[Mapping[str, Shape]],
    lengths: Sequence[int],
    paddings: Sequence[Sequence[int]],
    ranks: int,
) -> dict[str, Place]:
    """Stages 1 and 2: a group is one vector, of which each rank has `lengths[group]` elements.

    Args:
        paddings: unused elements after each parameter of each group.
    """
    places = {}
    for group, shapes in enumerate(groups):
        offset = 0
        for (name, shape), padding in zip(shapes.items(), paddings[group], strict=True):
            pieces = _ranges(offset, offset + prod(shape), lengths[group], ranks)
            places[name] = Place(shape=shape, flat=group, pieces=pieces)
            offset += prod(shape) + padding
    return places


def in_parts(groups: Sequence[Mapping[str, Shape]], lengths: Sequence[int], ranks: int) -> dict[str, Place]:
    """Stage 3: each rank has an equal part of every parameter, laid into sub-groups of `lengths` elements.

    Raises:
        ValueError: the sub-groups do not hold these parameters.
    """
    places = {}
    flat, offset = 0, 0
    for name, shape in (pair for shapes in groups for pair in shapes.items()):
        part = -(-prod(shape) // ranks)
        while part and flat < len(lengths) and offset == lengths[flat]:
            flat, offset = flat + 1, 0
        if part and (flat == len(lengths) or offset + part > lengths[flat]):
            raise ValueError(f"no sub-group holds {name} whole")
        places[name] = Place(shape=shape, flat=flat, pieces=_parts(prod(shape), part, offset, ranks))
        offset += part
    return places


def whole(shape: Shape, ranks: int) -> tuple[Piece, ...]:
    """The pieces of a parameter that is alone in its flat tensors, as frozen ones are in stage 3."""
    return _parts(prod(shape), -(-prod(shape) // ranks), 0, ranks)


def _ranges(start: int, stop: int, length: int, ranks: int) -> tuple[Piece, ...]:
    pieces = []
    for rank in range(ranks):
        low, high = max(start, rank * length), min(stop, (rank + 1) * length)
        if low < high:
            pieces.append(Piece(rank=rank, start=low - rank * length, stop=high - rank * length))
    return tuple(pieces)


def _parts(count: int, part: int, offset: int, ranks: int) -> tuple[Piece, ...]:
    used = [max(0, min(part, count - rank * part)) for rank in range(ranks)]
    return tuple(
        Piece(rank=rank, start=offset, stop=offset + length) for rank, length in enumerate(used) if length
    )
