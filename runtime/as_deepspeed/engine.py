"""What scripts, transformers and accelerate call of DeepSpeed's engine, by what the engine here does."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from runtime.as_deepspeed.names import ENGINE_NAMES
from runtime.train.engine import Engine


class DeepSpeedEngine(Engine):
    """The engine under DeepSpeed's names; made by `deepspeed.initialize`."""

    @classmethod
    def names(cls) -> frozenset[str]:
        """What it answers by itself: its methods, and the attributes that its classes declare."""
        declared = (name for one in cls.__mro__ for name in inspect.get_annotations(one))
        return frozenset((*dir(cls), *declared))

    def __getattr__(self, name: str) -> Any:
        if name in ENGINE_NAMES:
            raise AttributeError(f"the engine's {name} of DeepSpeed is not here: see docs/from_deepspeed.md")
        return super().__getattr__(name)

    def _zero3_consolidated_16bit_state_dict(
        self, exclude_frozen_parameters: bool = False
    ) -> dict[str, torch.Tensor] | None:
        """Whole weights in the compute type, in rank 0's memory; None on the others. Collective."""
        weights = self.whole_16bit_weights(exclude_frozen_parameters)
        return weights if self.dims.dp.is_first else None

    save_fp16_model = Engine.save_16bit_model
