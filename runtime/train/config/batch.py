"""The three batch sizes: any sufficient two of them give the third, exactly or not at all."""

from __future__ import annotations

from dataclasses import dataclass

GLOBAL, MICRO, STEPS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples in an optimizer step (`total`) and in a rank's micro-step (`micro`); micro-steps in a step."""

    total: int
    micro: int
    steps: int
    world_size: int


class DoesNotFit(ValueError):
    """The sizes contradict each other; `fix` names sizes that fit."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found = found
        self.fix = fix


def solve(*, total: int | None, micro: int | None, steps: int | None, world_size: int) -> Batch:
    """Fills in what is missing so that total = micro * steps * world_size.

    Raises:
        DoesNotFit: too little is given, or no whole numbers satisfy the equation.
    """
    if total is None:
        if micro is None:
            raise DoesNotFit(f"neither {GLOBAL} nor {MICRO} is given", f"Write {MICRO}, for example 1.")
        steps = steps or 1
        return Batch(total=micro * steps * world_size, micro=micro, steps=steps, world_size=world_size)
    if micro is None:
        steps = steps or 1
        micro = _divide(total, steps, world_size, names=f"{STEPS} {steps}")
    elif steps is None:
        steps = _divide(total, micro, world_size, names=f"{MICRO} {micro}")
    elif total != micro * steps * world_size:
        raise DoesNotFit(
            f"{GLOBAL} {total} is not {MICRO} {micro} x {STEPS} {steps} x {world_size} ranks "
            f"(= {micro * steps * world_size})",
            f"Leave one of the three out, or write {GLOBAL} {micro * steps * world_size}.",
        )
    return Batch(total=total, micro=micro, steps=steps, world_size=world_size)


def _divide(total: int, by: int, world_size: int, *, names: str) -> int:
    unit = by * world_size
    if total % unit:
        below, above = total // unit * unit, (total // unit + 1) * unit
        nearest = f"{below} or {above}" if below else f"{above}"
        raise DoesNotFit(
            f"{GLOBAL} {total} cannot be divided by {names} x {world_size} ranks (= {unit})",
            f"Write {GLOBAL} {nearest}.",
        )
    return total // unit
