"""The loss scale moves as that of the field's runtime does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.train.config.precision import Fp16
from runtime.train.config.schema import Config
from runtime.train.optim.precision import LossScale, compute_dtype, mixed_precision

FILE = Path(__file__).parents[4] / "cases" / "loss_scale" / "deepspeed_0_19_8.json"
CASES = json.loads(FILE.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["fp16"]))
def test_the_scale_moves_as_the_peers(case: dict[str, Any]) -> None:
    scale = LossScale.from_config(Fp16(enabled=True, **case["fp16"]))

    seen = []
    for overflow in case["overflows"]:
        seen.append(scale.value)
        scale.update(overflow=bool(overflow))

    assert seen == case["scales"]


def test_a_scale_continues_from_its_state() -> None:
    config = Fp16(enabled=True, loss_scale_window=3)
    before, after = LossScale.from_config(config), LossScale.from_config(config)
    for overflow in (True, True, False, False):
        before.update(overflow=overflow)

    after.load_state_dict(before.state_dict())
    for scale in (before, after):
        for overflow in (False, False, True, False):
            scale.update(overflow=overflow)

    assert before == after


def test_a_fixed_scale_stays() -> None:
    scale = LossScale.from_config(Fp16(enabled=True, loss_scale=128.0))
    scale.update(overflow=True)

    assert scale.value == 128.0


def test_the_other_types_are_not_scaled() -> None:
    assert LossScale.from_config(Fp16()).value == 1.0


def test_gradients_travel_in_the_compute_type_unless_told_otherwise() -> None:
    bf16 = Config.model_validate({"bf16": {"enabled": True}})
    exact = Config.model_validate({"bf16": {"enabled": True}, "communication_data_type": "fp32"})

    assert compute_dtype(Config()) is torch.float32
    assert mixed_precision(Config()).param_dtype is None
    # torch 2.6 has None for "the compute type".
    assert mixed_precision(bf16).reduce_dtype in (torch.bfloat16, None)
    assert mixed_precision(bf16).param_dtype is torch.bfloat16
    assert mixed_precision(exact).reduce_dtype is torch.float32
