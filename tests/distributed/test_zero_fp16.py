"""fp16: an overflow on one rank skips the step on all, moves the scale, never ends a run without advice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import RuntimeFault
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, History, Model, Samples, config_for, engine_loops, plain_loop

pytestmark = pytest.mark.distributed


def fp16(**settings: Any) -> dict[str, Any]:
    return {"enabled": True, "initial_scale_power": 8, **settings}


def test_losses_stay_within_fp16s_precision(ranks: Ranks) -> None:
    plain: History = plain_loop()

    histories = ranks(
        engine_loops, 2, [config_for(stage, fp16=fp16()) for stage in range(4)], timeout_seconds=120
    )[0]

    for stage, history in enumerate(histories):
        assert history.losses == pytest.approx(plain.losses, rel=5e-3), f"stage {stage}"
        assert history.norms == pytest.approx(plain.norms, rel=2e-2), f"stage {stage}"


def overflow_on_one_rank(topology: Topology) -> dict[str, Any]:
    """Rank 1's gradient of one parameter is infinite in steps 1 and 2 of five."""
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    config = config_for(3, gradient_accumulation_steps=1, fp16=fp16(hysteresis=1), scheduler=None)
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
    seen: dict[str, Any] = {"scales": [], "overflows": [], "moved": []}
    for step in range(5):
        before = {n: p.full_tensor().clone() for n, p in engine.module.named_parameters()}
        x, y = Samples()[step]
        loss = engine(x[None], y[None])
        factor = float("inf") if step in (1, 2) and topology.rank == 1 else 1.0
        engine.backward(loss * factor)
        engine.step()
        after = dict(engine.module.named_parameters())
        seen["scales"].append(engine.scaling.value)
        seen["overflows"].append(engine.overflow)
        seen["moved"].append(any(not torch.equal(before[n], after[n].full_tensor()) for n in before))
    seen["skipped"] = engine.skipped_steps
    shutdown(group)
    return seen


def test_an_overflow_on_one_rank_skips_the_step_on_all(ranks: Ranks) -> None:
    for seen in ranks(overflow_on_one_rank, 2, timeout_seconds=300):
        assert seen["overflows"] == [False, True, True, False, False]
        assert seen["moved"] == [True, False, False, True, True]
        assert seen["scales"] == [256, 128, 64, 64, 64]
        assert seen["skipped"] == 2


class Exploding(nn.Module):
    """`second` is where the gradient stops being finite; `first` is before it in the backward's way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(x).sum() * float("inf") + self.first(x).sum() * 0


def overflow_for_ever(topology: Topology) -> tuple[int, str]:
    group = runtime.init_distributed()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW"},
        "fp16": {"enabled": True, "initial_scale_power": 2, "hysteresis": 1},
        "zero_optimization": {"stage": 2},
    }
    engine, *_ = runtime.initialize(model=Exploding(), config=config)
    said = ""
    try:
        for _ in range(100):
            engine.backward(engine(torch.ones(1, 2)))
            engine.step()
    except RuntimeFault as e:
        said = str(e)
    shutdown(group)
    return engine.skipped_steps, said


def test_at_the_smallest_scale_steps_are_skipped_and_then_the_culprit_is_named(ranks: Ranks) -> None:
    for skipped, said in ranks(overflow_for_ever, 2, timeout_seconds=300):
        assert skipped == 22  # two to get from 4 to 1, then twenty at 1
        assert "20 times in a row, now in second.weight" in said
        assert "samples 42 to 43" in said
        assert "Use bf16" in said


def plain_backward(topology: Topology) -> tuple[str, bool]:
    group = runtime.init_distributed()
    config = config_for(1, gradient_accumulation_steps=1, train_batch_size=1, fp16=fp16())
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
    x, y = Samples()[0]
    said = ""
    try:
        engine(x[None], y[None]).backward()
        engine.step()
    except RuntimeFault as e:
        said = str(e)
    engine.zero_grad()
    engine.scale(engine(x[None], y[None])).backward()
    engine.step()
    shutdown(group)
    return said, engine.overflow


def test_a_backward_without_the_scale_is_refused_and_a_scaled_one_is_right(ranks: Ranks) -> None:
    [(said, overflow)] = ranks(plain_backward, 1, timeout_seconds=300)

    assert "the loss went backward without the loss scale" in said
    assert not overflow
