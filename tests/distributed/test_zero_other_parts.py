"""Ranks that use other parts of a model: right where they may (up to stage 2), loud in stage 3."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import JobFailed
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed


class Routed(nn.Module):
    """A block for all, and as many as there are ways to go on: all of one size, each of its own number."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4, bias=False)
        self.experts = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(3))
        with torch.no_grad():
            self.shared.weight.copy_(torch.eye(4))
            for number, expert in enumerate(self.experts):
                expert.weight.copy_(torch.eye(4) * 10**number)

    def forward(self, x: torch.Tensor, *ways: int) -> torch.Tensor:
        x = self.shared(x)
        for way in ways:
            x = self.experts[way](x)
        return x.sum()


def routed(topology: Topology, stage: int, *, frozen: bool = False, timeout_seconds: float = 60.0) -> Engine:
    runtime.init_distributed(timeout_seconds=timeout_seconds)
    model = Routed()
    model.experts.requires_grad_(not frozen)
    engine, *_ = runtime.initialize(
        model=model,
        blocks=[nn.Linear],
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_clipping": 1.0,
            "optimizer": {"type": "SGD", "params": {"lr": 0.1}},
            "zero_optimization": {"stage": stage},
        },
    )
    return engine


def losses_of(topology: Topology, stage: int) -> list[float]:
    """What each rank's own way comes to, before and after a step by the mean of both."""
    engine = routed(topology, stage)
    found = []
    for _ in range(2):
        loss = engine(torch.ones(1, 4), 1 + topology.rank)
        engine.backward(loss)
        engine.step()
        found.append(round(float(loss), 3))
    shutdown(engine.group)
    return found


@pytest.mark.parametrize("stage", [0, pytest.param(1, marks=pytest.mark.long), 2])
def test_ranks_may_use_other_parts_up_to_stage_2(ranks: Ranks, stage: int) -> None:
    first, second = ranks(losses_of, 2, stage)

    assert (first[0], second[0]) == (40, 400)
    assert first[1] < 40
    assert second[1] < 400


def train(engine: Engine, *ways: int) -> None:
    engine.backward(engine(torch.ones(1, 4), *ways))
    engine.step()


def evaluate(engine: Engine, *ways: int) -> None:
    with torch.no_grad():
        engine(torch.ones(1, 4), *ways)


def refused(topology: Topology, what: str) -> tuple[str, bool]:
    """What is said, and whether the weights are those of before."""
    engine = routed(topology, 3, frozen=what == "frozen")
    before = [parameter.detach().clone() for parameter in engine.module.parameters()]
    use = evaluate if what == "evaluated" else train
    with pytest.raises(JobFailed) as caught:
        use(engine, 1 + topology.rank)
    after = list(engine.module.parameters())
    same = all(torch.equal(*_locals(pair)) for pair in zip(before, after, strict=True))
    shutdown(engine.group)
    return str(caught.value), same


def _locals(pair: tuple[Any, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return pair[0].to_local(), pair[1].detach().to_local()


@pytest.mark.parametrize("what", ["trained", "frozen", "evaluated"])
def test_other_parts_of_one_size_in_stage_3_are_named(ranks: Ranks, what: str) -> None:
    """Their gathers meet, and nothing fails: two halves of different experts are computed with."""
    for said, same in ranks(refused, 2, what):
        assert "rank 0 used experts.1 where rank 1 used experts.2" in said
        assert same


def refused_in_time(topology: Topology) -> str:
    engine = routed(topology, 3, timeout_seconds=5)
    ways = (1, 2) if topology.rank == 0 else (2,)
    with pytest.raises(JobFailed) as caught:
        train(engine, *ways)
    return str(caught.value)


@pytest.mark.measures
def test_a_part_that_one_rank_leaves_out_in_stage_3_is_named_within_the_time_out(ranks: Ranks) -> None:
    for said in ranks(refused_in_time, 2):
        assert "rank 0 used experts.1 where rank 1 used experts.2" in said
