"""In which types a model computes and gradients travel, and the loss scale that fp16 needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from runtime.train.config.precision import Fp16
from runtime.train.config.schema import Config

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def compute_dtype(config: Config) -> torch.dtype:
    """The type of the forward and the backward; master weights are fp32 whatever it is."""
    return _TYPES[config.compute_type]


def waiting_dtype(config: Config) -> torch.dtype:
    """The type of gradient shards between micro-steps."""
    return _TYPES[config.shards_wait_in]


def mixed_precision(config: Config) -> MixedPrecisionPolicy:
    """FSDP2's policy: gathers in the compute type, reduces in communication_data_type or else the same."""
    dtype = compute_dtype(config)
    wanted = config.communication_data_type
    if dtype is torch.float32 and wanted is None:
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=_TYPES[wanted] if wanted else dtype)


@dataclass(slots=True, kw_only=True)
class LossScale:
    """The factor that keeps small fp16 gradients from vanishing; 1 for the other types.

    Semantics of the field: halved when `hysteresis` overflows have come, doubled after `window` steps
    without one. Source: DeepSpeed 0.19.8, runtime/fp16/loss_scaler.py. Unlike there, an overflow at the
    smallest scale does not end the training: the engine bounds the number of skipped steps in a row.
    """

    value: float
    dynamic: bool
    window: int = 1000
    hysteresis: int = 2
    refill_hysteresis: bool = False
    smallest: float = 1.0
    step: int = 0
    last_overflow: int = -1
    hysteresis_left: int = 2

    @classmethod
    def from_config(cls, config: Fp16) -> LossScale:
        """The scale that a configuration starts with."""
        if not config.enabled:
            return cls(value=1.0, dynamic=False)
        dynamic = config.loss_scale == 0
        return cls(
            value=2.0**config.initial_scale_power if dynamic else config.loss_scale,
            dynamic=dynamic,
            window=config.loss_scale_window,
            hysteresis=config.hysteresis,
            refill_hysteresis=config.consecutive_hysteresis,
            smallest=config.min_loss_scale,
            hysteresis_left=config.hysteresis,
        )

    def update(self, *, overflow: bool) -> None:
        """Takes note of a step, and changes the scale when it is time."""
        if self.dynamic and overflow:
            self._lower()
        elif self.dynamic:
            self._raise()
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {name: getattr(self, name) for name in ("value", "step", "last_overflow", "hysteresis_left")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a state; the window and the bounds stay those of the configuration."""
        for name, value in state.items():
            setattr(self, name, value)

    def _lower(self) -> None:
        if self.hysteresis == 1 or self.hysteresis_left == 1:
            self.value = max(self.value / 2, self.smallest)
        else:
            self.hysteresis_left -= 1
        self.last_overflow = self.step

    def _raise(self) -> None:
        if self.refill_hysteresis:
            self.hysteresis_left = self.hysteresis
        calm = self.step - self.last_overflow - 1
        if calm > 0 and calm % self.window == 0:
            if not self.refill_hysteresis:
                self.hysteresis_left = self.hysteresis
            self.value *= 2
