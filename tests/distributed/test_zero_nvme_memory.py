"""A model whose optimizer states are twice what its process may have of memory trains."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
WIDTH, LAYERS = 2048, 72
STATE_BYTES = 12 * LAYERS * WIDTH * WIDTH  # fp32 masters and two moments


class Wide(nn.Module):
    """302 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x) / LAYERS
        return x.square().mean()


def train(topology: Topology, offload: dict[str, Any]) -> tuple[list[float], int]:
    """Losses of two steps under a limit on private memory, and the limit."""
    limit = STATE_BYTES // 2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    group = runtime.init_distributed()
    torch.manual_seed(0)
    config = {
        "train_batch_size": 4,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "aio": {"queue_depth": 2},  # a thread's stack counts 8 MiB
        "zero_optimization": {
            "stage": 3,
            "sub_group_size": 1 << 20,
            "offload_optimizer": offload,
        },
    }
    engine, *_ = runtime.initialize(model=Wide(), config=config)
    batch = torch.randn(4, WIDTH)
    losses = []
    for _ in range(2):
        loss = engine(batch)
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    shutdown(group)
    return losses, limit


def test_states_of_twice_the_memory_train(ranks: Ranks, tmp_path: Path) -> None:
    [(losses, limit)] = ranks(train, 1, {"device": "nvme", "nvme_path": str(tmp_path)}, timeout_seconds=300)

    assert 2 * limit <= STATE_BYTES
    assert losses[1] < losses[0]


def test_the_limit_is_one_that_states_in_memory_do_not_keep(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match="allocate memory"):
        ranks(train, 1, {"device": "cpu"}, timeout_seconds=300)
