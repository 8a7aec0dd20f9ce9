"""What the collectives' part of the smoke test does, in order, and how far; all ranks derive the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runtime.errors import BadInput

BROADCAST_BYTES = 1 << 20
# What people send today to test a link: a million floats (SCENARIO.md, section 4).
RING_BYTES = 4_000_000
LARGEST_BYTES = 1 << 30
# The operation whose message grows, and seconds that this may take.
SWEPT = "all-reduce"
SWEEP_SECONDS = 6.0
# What the operations that give every rank a part are measured with: one float for each, and about a MiB.
PARTED = ("all-gather", "reduce-scatter", "all-to-all")
PARTED_BYTES = (4, 1 << 20)
# Two steps of a tiny model under ZeRO-3.
TRAINING = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One bounded operation. `source` is the root of a broadcast, `target` the direction of a ring, else -1.

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
            "ring": f" by {self.target:+d}",
        }.get(self.step, "")
        return f"{self.step}{ends}" + (f" of {size_text(self.size)}" if self.size else "")


def operations(world_size: int, sizes: Sequence[int]) -> tuple[Operation, ...]:
    """Broadcast from every rank, ring, barrier, what gives parts, all-reduce over the sizes, training."""
    return tuple(
        Operation(number=number, step=step, size=size, source=source, target=target)
        for number, (step, size, source, target) in enumerate(_steps(world_size, sizes))
    )


def _steps(world_size: int, sizes: Sequence[int]) -> Iterator[tuple[str, int, int, int]]:
    for root in range(world_size):
        yield "broadcast", BROADCAST_BYTES, root, -1
    for direction in (1, -1) if world_size > 1 else ():  # gloo knows no pair with itself
        yield "ring", RING_BYTES, -1, direction
    yield "barrier", 0, -1, -1
    for step in PARTED:
        for size in PARTED_BYTES:
            yield step, max(1, size // (4 * world_size)) * 4 * world_size, -1, -1
    for size in sizes:
        yield SWEPT, size, -1, -1
    yield TRAINING, 0, -1, -1


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


@dataclass(slots=True, kw_only=True)
class Budget:
    """Seconds that the sweep may take, 0 for no limit, and that one size may; ranks that agree decide alike.

    `size` and `seconds` are of the last size that was measured.
    """

    limit_seconds: float
    step_seconds: float
    spent_seconds: float = 0.0
    size: int = 0
    seconds: float = 0.0

    def spend(self, *, size: int, seconds: float) -> None:
        """Notes a size that was measured, with the slowest rank's seconds for all of it."""
        self.spent_seconds += seconds
        self.size, self.seconds = size, seconds

    def against(self, size: int) -> str:
        """Why this size is left out; empty where it fits. Time grows with the bytes from the last size on."""
        if not self.limit_seconds or not self.size:
            return ""
        wanted = self.seconds * max(1.0, size / self.size)
        left = min(self.step_seconds, max(0.0, self.limit_seconds - self.spent_seconds))
        if wanted <= left:
            return ""
        return (
            f"it would take {wanted:.1f} s, and {left:.1f} are left of the sweep's {self.limit_seconds:g} s"
        )
