"""A model of a million parameters in ten blocks, for arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runtime.train.estimate.states import Activations, Model, Settings

_KEPT = Activations(block=900, block_input=65, outside=100)
MODEL = Model(
    name="model",
    trained=1_000_000,
    frozen=0,
    blocks=10,
    block=80_000,
    block_trained=80_000,
    root=200_000,
    buffer_bytes=0,
    activations={2: _KEPT, 4: _KEPT},
    activations_from="",
)


def settings(**changes: Any) -> Settings:
    """bf16, Adam, one sample in a micro-step, one micro-step in a step."""
    plain = Settings(
        ranks=1, stage=0, compute_bytes=2, reduce_bytes=2, micro_batch=1, accumulation=1, moments=2
    )
    return replace(plain, **changes)
