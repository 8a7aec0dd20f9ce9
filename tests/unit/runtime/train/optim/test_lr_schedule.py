"""Learning rates equal those of the field's runtime at every step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from runtime.errors import BadInput
from runtime.train.config.training import Scheduler
from runtime.train.optim.lr_schedule import Schedule, build_schedule

CASES = json.loads((Path(__file__).parents[4] / "cases" / "schedules" / "deepspeed_0_19_8.json").read_text())[
    "cases"
]


def optimizer(lr: float, groups: int = 1) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], lr=lr)


def schedule(config: dict[str, Any], over: torch.optim.Optimizer) -> Schedule:
    adapter: TypeAdapter[Any] = TypeAdapter(Scheduler)
    return build_schedule(adapter.validate_json(json.dumps(config)), over)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case['scheduler']['type']} {case['scheduler']['params']}"
)
def test_a_schedule_gives_the_peers_numbers(case: dict[str, Any]) -> None:
    over = optimizer(case["optimizer_lr"])
    ours = schedule(case["scheduler"], over)

    rates, betas = [], []
    for _ in case["lr"]:
        rates.append(over.param_groups[0]["lr"])
        betas.append(over.param_groups[0]["betas"][0])
        ours.step()

    assert rates == pytest.approx(case["lr"], rel=1e-12, abs=1e-18)
    assert betas == pytest.approx(case["first_beta"], rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["scheduler"]["type"])
def test_a_schedule_continues_from_its_state(case: dict[str, Any]) -> None:
    before = schedule(case["scheduler"], optimizer(case["optimizer_lr"]))
    for _ in range(12):
        before.step()

    over = optimizer(case["optimizer_lr"])
    after = schedule(case["scheduler"], over)
    after.load_state_dict(before.state_dict())

    assert after.get_last_lr() == before.get_last_lr() == [over.param_groups[0]["lr"]]


def test_each_group_has_its_own_rates() -> None:
    over = optimizer(0.1, groups=2)
    config = {"type": "WarmupLR", "params": {"warmup_max_lr": [0.1, 0.2], "warmup_num_steps": 2}}

    ours = schedule(config, over)
    ours.step(5)

    assert [group["lr"] for group in over.param_groups] == [0.1, 0.2]


def test_a_list_of_another_length_than_the_groups_is_refused() -> None:
    config = {"type": "WarmupLR", "params": {"warmup_max_lr": [0.1, 0.2]}}

    with pytest.raises(BadInput, match="2 values for 1 parameter groups"):
        schedule(config, optimizer(0.1))


@pytest.mark.parametrize("kind", ["WarmupDecayLR", "WarmupCosineLR"])
def test_a_schedule_over_a_length_that_nobody_knows_is_refused(kind: str) -> None:
    config = {"type": kind, "params": {"total_num_steps": None}}

    with pytest.raises(BadInput, match=r"total_num_steps is \"auto\", and the job's length is not known"):
        schedule(config, optimizer(0.1))
