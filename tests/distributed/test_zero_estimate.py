"""The estimate's bytes of model state against what the engine holds, at two ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from runtime.train.config import Situation, read_config
from runtime.train.engine import Engine
from runtime.train.estimate.states import Settings, estimate
from runtime.train.estimate.traced import trace
from runtime.train.parallel.fsdp import units
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
WIDTH = 64


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
            for _ in range(6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = x + layer(x)
        return x.square().mean()


def build(micro_batch: int, seq_length: int) -> tuple[nn.Module, tuple[torch.Tensor]]:
    return Stack(), (torch.randn(micro_batch, WIDTH),)


def gathered_bytes(engine: Engine) -> int:
    """Whole parameters that FSDP2 holds now, and what it has gathered of the next block."""
    groups = [unit._get_fsdp_state()._fsdp_param_group for unit in units(engine.module)]
    outputs = [t for group in groups for p in group.fsdp_params for t in p.all_gather_outputs]
    ahead = [g._all_gather_result.all_gather_output for g in groups if g._all_gather_result is not None]
    return sum(t.untyped_storage().nbytes() for t in (*outputs, *ahead))


def watch_gathered(engine: Engine, into: list[int]) -> None:
    """Notes what is gathered in the middle of each block's backward."""

    def note(_: torch.Tensor) -> None:
        into.append(gathered_bytes(engine))

    def hook(_: nn.Module, __: object, output: torch.Tensor) -> None:
        output.register_hook(note)

    for layer in engine.module.layers:
        layer[0].register_forward_hook(hook)


def whole_gradient_bytes(engine: Engine) -> int:
    """Gradients that wait for the boundary."""
    groups = [unit._get_fsdp_state()._fsdp_param_group for unit in units(engine.module)]
    waiting = [p.unsharded_accumulated_grad for group in groups for p in group.fsdp_params]
    whole = [p._unsharded_param.grad for group in groups for p in group.fsdp_params]
    return sum(g.numel() * g.element_size() for g in (*waiting, *whole) if g is not None)


def shard_bytes(tensors: list[Any]) -> int:
    return sum(t.to_local().nbytes for t in tensors if t is not None)


def held(topology: Topology, configs: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Bytes of this rank at their peaks: gathered and gradients after a backward, states after a step."""
    group = runtime.init_distributed()
    found = []
    for config in configs:
        torch.manual_seed(0)
        engine, optimizer, *_ = runtime.initialize(model=Stack(), config=config)
        parameters = list(engine.module.parameters())
        gathered: list[int] = []
        watch_gathered(engine, gathered)
        gradients = []
        for _ in range(2):
            engine.backward(engine(torch.randn(1, WIDTH)))
            gradients.append(whole_gradient_bytes(engine) + shard_bytes([p.grad for p in parameters]))
            engine.step()
        moments = [s[kind] for s in optimizer.state.values() for kind in ("exp_avg", "exp_avg_sq")]
        found.append(
            {
                "parameters": shard_bytes(parameters),
                "gathered": max(gathered),
                "gradients": max(gradients),
                "optimizer": shard_bytes(moments),
            }
        )
    shutdown(group)
    return found


def config_of(stage: int, **changes: Any) -> dict[str, Any]:
    return {
        "train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}},
        "zero_optimization": {"stage": stage},
        **changes,
    }


def test_model_states_are_those_of_the_estimate(ranks: Ranks) -> None:
    configs = [config_of(stage, **bf16) for stage in range(4) for bf16 in ({}, {"bf16": {"enabled": True}})]
    model = trace("", build, 1)

    by_rank = ranks(held, 2, configs, timeout_seconds=120)

    for found in by_rank:
        for config, held_bytes in zip(configs, found, strict=True):
            resolved = read_config(config, Situation(world_size=2)).config
            parts = estimate(model, Settings.from_config(resolved, 2)).device
            for part, size in held_bytes.items():
                assert getattr(parts, part) == pytest.approx(size, rel=0.05), (config, part)
