"""Blocks that are tied to each other or to the rest of the model stay with its root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import Layer, Model

pytestmark = pytest.mark.distributed
STEPS = 3


def tied() -> Model:
    """The first layer has a weight of the last one's, and the embedding, a block as well, the head's."""
    torch.manual_seed(0)
    model = Model()
    layers: Any = model.layers
    layers[2].first.weight = layers[0].first.weight
    return model


def tokens(step: int) -> torch.Tensor:
    return torch.randint(0, 23, (4, 6), generator=torch.Generator().manual_seed(step))


def losses(
    forward: Callable[..., torch.Tensor], backward: Callable[[torch.Tensor], Any], step: Any
) -> list[float]:
    found = []
    for number in range(STEPS):
        x = tokens(number)
        loss = forward(x, x.roll(1, dims=1))
        backward(loss)
        step()
        found.append(loss.item())
    return found


def sharded_losses(topology: Topology, stage: int) -> list[float]:
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_clipping": 0,
        "optimizer": {"type": "SGD", "params": {"lr": 0.5}},
        "zero_optimization": {"stage": stage},
    }
    engine, *_ = runtime.initialize(model=tied(), config=config, blocks=[Layer, nn.Embedding])
    found = losses(engine, engine.backward, engine.step)
    shutdown(engine.group)
    return found


@pytest.mark.parametrize("stage", [1, 3])
def test_tied_blocks_train_as_in_a_plain_model(ranks: Ranks, stage: int) -> None:
    model = tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    plain = losses(model, lambda loss: loss.backward(), step)  # type: ignore[no-untyped-call]

    for found in ranks(sharded_losses, 2, stage):
        assert found == pytest.approx(plain, rel=1e-5)
