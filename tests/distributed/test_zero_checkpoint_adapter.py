"""Checkpoints of what is trained only: small, and whole again on the same base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, WIDTH, Model, Samples, config_for

pytestmark = pytest.mark.distributed


class Adapter(nn.Module):
    """A frozen layer and a low-rank correction, as LoRA has it."""

    def __init__(self, base: nn.Linear, rank: int = 1) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def new_engine(adapter_seed: int) -> Engine:
    torch.manual_seed(SEED)
    model = Model().requires_grad_(False)
    torch.manual_seed(adapter_seed)
    for layer in model.layers:
        layer.first = Adapter(layer.first)
    return runtime.initialize(model=model, training_data=Samples(), config=config_for(3))[0]


def adapter_losses(topology: Topology, folder: str) -> tuple[list[float], list[float]]:
    """After three steps, without and with a save and a load by an engine whose adapters began elsewhere."""
    group = runtime.init_distributed(timeout_seconds=60)
    engine = new_engine(1)
    for _ in range(3):
        engine.train_batch()
    engine.save_checkpoint(folder, "whole")
    engine.save_checkpoint(folder, "adapter", exclude_frozen_parameters=True)
    uninterrupted = [engine.train_batch().item() for _ in range(3)]
    other = new_engine(2)
    other.load_checkpoint(folder, "adapter")
    resumed = [other.train_batch().item() for _ in range(3)]
    shutdown(group)
    return uninterrupted, resumed


def stored_bytes(folder: Path) -> int:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return sum(record["size"] for name, record in files.items() if name.endswith(".distcp"))


def test_an_adapter_and_its_base_continue_as_if_uninterrupted(ranks: Ranks, tmp_path: Path) -> None:
    uninterrupted, resumed = ranks(adapter_losses, 2, str(tmp_path), timeout_seconds=300)[0]

    assert resumed == uninterrupted
    trained, all_of_it = 3 * (WIDTH + 2 * WIDTH + 1), 23 * WIDTH
    assert stored_bytes(tmp_path / "whole") - stored_bytes(tmp_path / "adapter") > 4 * (all_of_it - trained)
