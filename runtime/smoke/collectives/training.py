"""The last operation of the ranks: two steps of a tiny ZeRO-3 model, equal to the same steps of one process.

The first loss is right when the weights were gathered whole from all ranks, the second when gradients were
averaged and every shard was updated. Weights and data are sines of their index, so nothing is drawn.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch
import torch._dynamo  # torch.optim loads it on first use, which takes a second or two
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from runtime.comm.group import Group
from runtime.smoke.collectives.pattern import Wrong
from runtime.train.build import build_engine
from runtime.train.config import Situation, read_config

STEPS = 2
_WIDTH = 64
_ROWS = 4
_RATE = 0.5
# In single precision the order of additions moves the sixth digit.
_TOLERANCE = 1e-4
_CONFIG = {
    "train_micro_batch_size_per_gpu": _ROWS,
    "optimizer": {"type": "SGD", "params": {"lr": _RATE}},
    "zero_optimization": {"stage": 3},
}


def train(group: Group) -> dict[str, Any]:
    """Seconds of each step, and the first loss that is not what one process has, as a `Wrong` or None."""
    seconds, found = _together(group)
    expected = _alone(group.topology.world_size)
    wrong = [number for number in range(STEPS) if not _equal(found[number], expected[number])]
    if not wrong:
        return {"seconds": seconds, "wrong": None}
    first = Wrong(count=len(wrong), index=wrong[0], expected=expected[wrong[0]], found=found[wrong[0]])
    return {"seconds": seconds, "wrong": asdict(first)}


def _equal(found: float, expected: float) -> bool:
    return abs(found - expected) <= _TOLERANCE * abs(expected)


def _together(group: Group) -> tuple[list[float], list[float]]:
    """Every rank on its own rows; the loss is the mean over the ranks."""
    situation = Situation(world_size=group.topology.world_size, hidden_size=None, bf16_supported=True)
    engine = build_engine(
        _model().to(group.device), read_config(_CONFIG, situation).config, group, blocks=(nn.Linear,)
    )
    rows, wanted = (part.to(group.device) for part in _data(group.topology.rank))
    seconds, losses = [], []
    for _ in range(STEPS):
        started = time.perf_counter()
        loss = functional.mse_loss(engine(rows), wanted)
        engine.backward(loss)
        engine.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(float(mean) / group.topology.world_size)
        seconds.append(time.perf_counter() - started)
    return seconds, losses


def _alone(world_size: int) -> list[float]:
    """All rows in one process, by hand: no optimizer, no sharding."""
    model = _model()
    parts = [_data(rank) for rank in range(world_size)]
    rows, wanted = (torch.cat(part) for part in zip(*parts, strict=True))
    losses = []
    for _ in range(STEPS):
        loss = functional.mse_loss(model(rows), wanted)
        gradients = torch.autograd.grad(loss, tuple(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=_RATE)
        losses.append(float(loss.detach()))
    return losses


def _model() -> nn.Module:
    model = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, _WIDTH))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(_sines(parameter.numel(), number).view_as(parameter) / _WIDTH**0.5)
    return model


def _data(rank: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a rank, each of shape (rows, width)."""
    inputs = _sines(_ROWS * _WIDTH, 100 + rank).view(_ROWS, _WIDTH)
    return inputs, inputs.roll(1, dims=1)


def _sines(count: int, seed: int) -> Tensor:
    return torch.sin(torch.arange(count, dtype=torch.float32) * (seed + 1))
