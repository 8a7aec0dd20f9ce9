"""Learning-rate schedules with the field's numbers: pure functions of the step, and what applies them.

Formulas: DeepSpeed 0.19.8, runtime/lr_schedules.py. Steps count from -1, the state before the first step, so
that the first two optimizer steps of a warm-up use its first value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from runtime.errors import BadInput
from runtime.train.config.training import (
    LRRangeTest,
    OneCycle,
    OneCycleParams,
    RangeTestParams,
    Rates,
    Scheduler,
    WarmupCosineLR,
    WarmupCosineParams,
    WarmupDecayParams,
    WarmupLR,
    WarmupParams,
)
from runtime.train.config.training import WarmupDecayLR as WarmupDecay

Rate = Callable[[int], float]  # learning rate at a step
Momentum = Callable[[int], float]  # first beta at a step


def warmup_share(step: int, steps: int, curve: str) -> float:
    """The part of the way up that is done at `step`, between 0 and 1."""
    if curve == "log":
        return math.log(step + 1) / math.log(steps)
    return step / steps


def _length(params: WarmupDecayParams | WarmupCosineParams) -> int:
    if params.total_num_steps is None:
        raise BadInput(
            "schedule learning rates over the whole training",
            found='scheduler.params.total_num_steps is "auto", and the job\'s length is not known',
            fix="Write the number of optimizer steps.",
        )
    return params.total_num_steps


def warmup(params: WarmupParams, low: float, high: float) -> Rate:
    """From low to high, then constant, or (with total_num_steps) on a line to 0."""
    steps = max(2, params.warmup_num_steps)
    total = _length(params) if isinstance(params, WarmupDecayParams) else None

    def share(step: int) -> float:
        if step < steps:
            return warmup_share(step, steps, params.warmup_type)
        if total is not None:
            return max(0.0, (total - step) / max(1.0, total - steps))
        return 1.0

    return lambda step: low if step < 0 else low + (high - low) * share(step)


def warmup_cosine(params: WarmupCosineParams, base: float) -> Rate:
    """Ratios of `base`: from warmup_min_ratio to 1, then down to cos_min_ratio along half a cosine."""
    steps = max(2, params.warmup_num_steps)
    low, last = params.warmup_min_ratio, params.cos_min_ratio
    total = _length(params)

    def ratio(step: int) -> float:
        if step < 0:
            return 0.0
        if step < steps:
            return low + (1 - low) * warmup_share(step, steps, params.warmup_type)
        done = min(1.0, (step - steps + 1) / max(1, total - steps))
        return max(0.0, last + (1 - last) * (1 + math.cos(math.pi * done)) / 2)

    return lambda step: base * ratio(step)


def range_test(params: RangeTestParams, low: float) -> Rate:
    """Up without end, on a line or in stairs."""

    def interval(step: int) -> float:
        passed = (step + 1) / params.lr_range_test_step_size
        return math.floor(passed) if params.lr_range_test_staircase else passed

    return lambda step: low if step < 0 else low * (1 + params.lr_range_test_step_rate * interval(step))


class Cycle:
    """The shape of OneCycle: how far up it is at a step, and how long it has been over."""

    def __init__(self, params: OneCycleParams) -> None:
        second = params.cycle_second_step_size
        self.first = float(params.cycle_first_step_size)
        self.second = self.first if second is None else float(second)
        self.total = self.first + self.second
        self.stairs_up = params.cycle_first_stair_count
        stairs_down = params.cycle_second_stair_count
        self.stairs_down = self.stairs_up if stairs_down is None else stairs_down
        self.decay_steps = params.decay_step_size

    def height(self, step: int) -> float:
        """0 at the bottom, 1 at the top."""
        done = step + 1
        position = 1.0 + done / self.total - math.floor(1 + done / self.total)
        turn = self.first / self.total
        rising = position <= turn
        height = position / turn if rising else (position - 1) / (turn - 1)
        stairs = self.stairs_up if rising else self.stairs_down
        if stairs == 0:
            return height
        inside = done % self.total
        if inside <= self.first:
            return math.floor(inside * stairs / self.first) / stairs
        return math.floor((self.total - inside) * stairs / self.second) / stairs

    def decays(self, step: int) -> float:
        """Decay intervals since the cycle ended; 0 while it lasts or where nothing decays."""
        over = step - self.total + 1
        return over / self.decay_steps if self.is_over(step) and self.decay_steps else 0.0

    def is_over(self, step: int) -> bool:
        """Whether the cycle has ended at a step."""
        return step >= self.total


def one_cycle(params: OneCycleParams, low: float, high: float) -> Rate:
    """Up from low to high and down again, then divided by a growing factor."""
    cycle = Cycle(params)

    def rate(step: int) -> float:
        if step < 0:
            return low
        if cycle.is_over(step):
            return low / (1 + params.decay_lr_rate * cycle.decays(step))
        return low + (high - low) * cycle.height(step)

    return rate


def cycle_momentum(params: OneCycleParams) -> Momentum:
    """The first beta: down while the learning rate goes up, and back."""
    cycle = Cycle(params)
    low, high = params.cycle_min_mom, params.cycle_max_mom

    def momentum(step: int) -> float:
        if step < 0:
            return low
        if cycle.is_over(step):
            return high * (1 + params.decay_mom_rate * cycle.decays(step))
        return high - (high - low) * cycle.height(step)

    return momentum


class Schedule:
    """Applies a rate to each parameter group; behaves as a learning-rate scheduler of PyTorch does.

    `last_batch_iteration` counts the steps that were taken, from -1.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, rates: Sequence[Rate], momentum: Momentum | None = None
    ) -> None:
        self.optimizer = optimizer
        self.rates = rates
        self.momentum = momentum
        self.last_batch_iteration = -1
        self._apply()

    def step(self, last_batch_iteration: int | None = None) -> None:
        """Moves to the next step, or to a given one."""
        following = self.last_batch_iteration + 1
        self.last_batch_iteration = following if last_batch_iteration is None else last_batch_iteration
        self._apply()

    def get_lr(self) -> list[float]:
        """The learning rates in force, one for each parameter group."""
        return [rate(self.last_batch_iteration) for rate in self.rates]

    def get_last_lr(self) -> list[float]:
        """The learning rates in force, one for each parameter group."""
        return self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """The step."""
        return {"last_batch_iteration": self.last_batch_iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the step of a state, and applies its rates."""
        self.step(int(state["last_batch_iteration"]))

    def _apply(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
            if self.momentum is not None:
                group["betas"] = (self.momentum(self.last_batch_iteration), 0.99)


def build_schedule(config: Scheduler, optimizer: torch.optim.Optimizer) -> Schedule:
    """The schedule that a configuration asks for.

    Raises:
        BadInput: a list of rates has another length than the optimizer has parameter groups.
    """
    base = [float(group["lr"]) for group in optimizer.param_groups]
    each = _per_group(len(base))
    if isinstance(config, WarmupCosineLR):
        return Schedule(optimizer, [warmup_cosine(config.params, lr) for lr in base])
    if isinstance(config, LRRangeTest):
        lows = each(config.params.lr_range_test_min_lr, "lr_range_test_min_lr")
        return Schedule(optimizer, [range_test(config.params, low) for low in lows])
    if isinstance(config, OneCycle):
        lows = each(config.params.cycle_min_lr, "cycle_min_lr")
        highs = each(config.params.cycle_max_lr, "cycle_max_lr")
        momentum = cycle_momentum(config.params) if config.params.cycle_momentum else None
        rates = [one_cycle(config.params, low, high) for low, high in zip(lows, highs, strict=True)]
        return Schedule(optimizer, rates, momentum)
    assert isinstance(config, WarmupLR | WarmupDecay)
    wanted = config.params.warmup_max_lr
    lows = each(config.params.warmup_min_lr, "warmup_min_lr")
    highs = base if wanted is None else each(wanted, "warmup_max_lr")
    return Schedule(
        optimizer, [warmup(config.params, low, high) for low, high in zip(lows, highs, strict=True)]
    )


def _per_group(count: int) -> Callable[[Rates, str], list[float]]:
    def each(value: Rates, name: str) -> list[float]:
        if not isinstance(value, list):
            return [float(value)] * count
        if len(value) != count:
            raise BadInput(
                f"apply scheduler.params.{name}",
                found=f"{len(value)} values for {count} parameter groups",
                fix="Write one number, or one for each group.",
            )
        return [float(one) for one in value]

    return each
