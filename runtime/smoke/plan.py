"""What the collectives' part of the smoke test does, in order: every rank derives the same list by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtime.errors import BadInput

BROADCAST_BYTES = 1 << 20
# What people send today to test a link: a million floats (SCENARIO.md, section 4).
PAIR_BYTES = 4_000_000
LARGEST_BYTES = 64 << 20
# Up to this many ranks every ordered pair is measured alone; beyond, all links of a ring at once.
PAIRED_RANKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One bounded operation. `source` and `target` are ranks, -1 where the operation has none.

    `size` counts bytes of the tensor, S of the definitions in `figures`; 0 for a barrier.
    """

    number: int
    step: str
    size: int
    source: int = -1
    target: int = -1

    def __str__(self) -> str:
        ends = {
            "broadcast": f" from rank {self.source}",
            "send-recv": f" from rank {self.source} to rank {self.target}",
            "ring": f" by {self.target:+d}",
        }.get(self.step, "")
        return f"{self.step}{ends}" + (f" of {size_text(self.size)}" if self.size else "")


def operations(world_size: int, sizes: Sequence[int]) -> tuple[Operation, ...]:
    """Broadcast from every rank, send and receive, a barrier, then all-reduce over the sizes in bytes."""
    return tuple(
        Operation(number=number, step=step, size=size, source=source, target=target)
        for number, (step, size, source, target) in enumerate(_steps(world_size, sizes))
    )


def _steps(world_size: int, sizes: Sequence[int]) -> Iterator[tuple[str, int, int, int]]:
    everyone = range(world_size)
    for root in everyone:
        yield "broadcast", BROADCAST_BYTES, root, -1
    if world_size <= PAIRED_RANKS:
        for source in everyone:
            for target in everyone:
                if source != target:
                    yield "send-recv", PAIR_BYTES, source, target
    else:
        for direction in (1, -1):
            yield "ring", PAIR_BYTES, -1, direction
    yield "barrier", 0, -1, -1
    for size in sizes:
        yield "all-reduce", size, -1, -1


def sweep(largest_bytes: int) -> tuple[int, ...]:
    """4 B to the largest, each four times the one before; the largest itself is always in.

    Raises:
        BadInput: it is not a whole number of floats.
    """
    check_sizes((largest_bytes,))
    sizes = []
    size = 4
    while size < largest_bytes:
        sizes.append(size)
        size *= 4
    return (*sizes, largest_bytes)


def check_sizes(sizes: Sequence[int]) -> None:
    """Each is a positive whole number of floats.

    Raises:
        BadInput: one is not, or there is none.
    """
    wrong = [size for size in sizes if size < 4 or size % 4]
    if wrong or not sizes:
        raise BadInput(
            "sweep messages of these sizes",
            found=", ".join(map(str, wrong)) or "no size",
            fix="Give bytes as multiples of 4, the size of a float.",
        )


def size_text(size: int) -> str:
    """Bytes in powers of two where they are one, else plain."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
