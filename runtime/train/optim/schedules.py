"""The schedules as classes that a script makes itself, with the parameters of a ds_config.json."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import torch
from pydantic import TypeAdapter

from runtime.train.config.training import Scheduler
from runtime.train.optim.lr_schedule import Schedule, build_schedule

LR_RANGE_TEST, ONE_CYCLE = "LRRangeTest", "OneCycle"
WARMUP_LR, WARMUP_DECAY_LR, WARMUP_COSINE_LR = "WarmupLR", "WarmupDecayLR", "WarmupCosineLR"
VALID_LR_SCHEDULES = [LR_RANGE_TEST, ONE_CYCLE, WARMUP_LR, WARMUP_DECAY_LR, WARMUP_COSINE_LR]
_CHOICE: TypeAdapter[Scheduler] = TypeAdapter(Scheduler)


class _Made(Schedule):
    """A schedule over an optimizer; parameters by name, or in `order`.

    Raises:
        pydantic.ValidationError: a parameter is unknown, missing or of a wrong type.
    """

    order: ClassVar[tuple[str, ...]]

    def __init__(self, optimizer: torch.optim.Optimizer, *values: Any, **named: Any) -> None:
        params = {**dict(zip(self.order, values, strict=False)), **named}
        step = params.pop("last_batch_iteration", -1)
        config = _CHOICE.validate_json(json.dumps({"type": type(self).__name__, "params": params}))
        made = build_schedule(config, optimizer)
        super().__init__(optimizer, made.rates, made.momentum)
        if step != -1:
            self.step(step)


class WarmupLR(_Made):
    """Warm-up, then constant."""

    order = ("warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type", "last_batch_iteration")


class WarmupDecayLR(_Made):
    """Warm-up, then linear decay."""

    order = ("total_num_steps", *WarmupLR.order)


class WarmupCosineLR(_Made):
    """Warm-up, then cosine decay."""

    order = ("total_num_steps", "warmup_min_ratio", "warmup_num_steps", "cos_min_ratio", "warmup_type")


class OneCycle(_Made):
    """One cycle."""

    order = (
        "cycle_min_lr",
        "cycle_max_lr",
        "decay_lr_rate",
        "cycle_first_step_size",
        "cycle_second_step_size",
    )


class LRRangeTest(_Made):
    """Range test."""

    order = ("lr_range_test_min_lr", "lr_range_test_step_size", "lr_range_test_step_rate")
