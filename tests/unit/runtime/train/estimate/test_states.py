"""Bytes by stage and place, as the engine holds them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from runtime.train.config import Situation, read_config
from runtime.train.estimate.states import Settings, estimate
from tests.unit.runtime.train.estimate.models import MODEL, settings

CASES = json.loads((Path(__file__).parents[4] / "cases" / "estimate" / "states.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_bytes_of_a_rank(case: dict[str, Any]) -> None:
    found = asdict(estimate(replace(MODEL, **case.get("model", {})), settings(**case["settings"])))

    for place in ("device", "host", "disk"):
        expected = case.get(place, {})
        assert {part: found[place][part] for part in expected} == expected, place


def test_settings_are_those_of_the_configuration() -> None:
    config = {
        "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 2,
        "bf16": {"enabled": True},
        "communication_data_type": "fp32",
        "optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}},
        "activation_checkpointing": {"cpu_checkpointing": True},
        "zero_optimization": {
            "stage": 3,
            "zero_hpz_partition_size": 2,
            "offload_optimizer": {"device": "cpu"},
        },
    }

    found = Settings.from_config(read_config(config, Situation(world_size=4)).config, 4)

    assert found == Settings(
        ranks=4,
        stage=3,
        compute_bytes=2,
        reduce_bytes=4,
        micro_batch=2,
        accumulation=2,
        moments=1,
        recompute=True,
        inputs_in_host=True,
        offload_optimizer="cpu",
        offload_param="none",
        hpz=2,
    )
