"""Parameters without a dimension (CLIP's logit_scale) train as in a plain model, at every stage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from runtime.train.checkpoint.export import export
from runtime.train.checkpoint.folder import entries
from runtime.train.engine import Engine
from runtime.train.weights.files import open_weights
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
WIDTH, STEPS, ACCUMULATION = 3, 3, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gain = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.tensor(1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x) * self.gain)


class Net(nn.Module):
    """One in a block, one of the root that is tied, one that is frozen, and one that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.last = nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.tied = self.scale
        self.frozen = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.unused = nn.Parameter(torch.tensor(7.0))

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.scale.fill_(2.0)
            self.block.gain.fill_(1.5)
            self.frozen.fill_(0.5)
            self.unused.fill_(7.0)
        self.block.linear.reset_parameters()
        self.last.reset_parameters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.scale.ndim == 0
        hidden = self.last(self.block(x)) * self.scale.exp() * self.frozen
        return hidden.square().mean() * self.tied


def batch(number: int) -> torch.Tensor:
    return torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(number))


def plain() -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    model, norms = Net(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-2, weight_decay=0.1)
    for step in range(STEPS):
        for number in range(ACCUMULATION):
            (model(batch(ACCUMULATION * step + number)) / ACCUMULATION).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.4)))
        optimizer.step()
        optimizer.zero_grad()
    return model, norms


def start(stage: int, model: nn.Module | None = None, **changes: Any) -> Engine:
    torch.manual_seed(0)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": ACCUMULATION,
        "gradient_clipping": 0.4,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.05, "eps": 1e-2, "weight_decay": 0.1}},
        **changes,
    }
    return runtime.initialize(model=model or Net(), config=config, blocks=[Block])[0]


def train(engine: Engine, steps: range) -> list[float]:
    rank, size = engine.group.topology.rank, engine.group.topology.world_size
    norms = []
    for step in steps:
        for number in range(ACCUMULATION):
            engine.backward(engine(batch(ACCUMULATION * step + number).chunk(size)[rank]))
            engine.step()
        norms.append(engine.get_global_grad_norm() or 0.0)
    return norms


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: p.full_tensor().detach().clone() for name, p in engine.module.named_parameters()}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return all(
        found[name].shape == wanted[name].shape and torch.allclose(found[name], wanted[name], atol=1e-5)
        for name in found
    )


def run(topology: Topology, folder: str) -> list[str]:
    group = runtime.init_distributed()
    wrong = [f"stage {n}: {what}" for n in range(4) for what in trained(topology, n, f"{folder}/{n}")]
    shutdown(group)
    return wrong


def trained(topology: Topology, stage: int, folder: str) -> list[str]:
    model, norms = plain()
    wanted = {name: p.detach() for name, p in model.named_parameters()}
    wrong = []
    engine = start(stage)
    if train(engine, range(STEPS)) != pytest.approx(norms, rel=1e-4):
        wrong.append("norms")
    if not same(weights(engine), wanted):
        wrong.append("weights")
    if engine.module.scale.item() != pytest.approx(wanted["scale"].item(), rel=1e-5):
        wrong.append("a number that is read")
    if stage < 3 or topology.world_size == 1:
        state = torch.load(_saved(engine.module.state_dict()), weights_only=True)
        if not same(state, model.state_dict()) or state["tied"] is not state["scale"]:
            wrong.append("state dict")
    return wrong + resumed(engine, stage, folder, wanted)


def _saved(state: dict[str, Any]) -> io.BytesIO:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return stream


def resumed(engine: Engine, stage: int, folder: str, wanted: dict[str, torch.Tensor]) -> list[str]:
    """A checkpoint in the middle, at another stage, is gone on with; a state dict is loaded."""
    wrong = []
    first = start(stage)
    train(first, range(1))
    first.save_checkpoint(folder)
    second = start((stage + 2) % 4)
    second.load_checkpoint(folder)
    train(second, range(1, STEPS))
    if not same(weights(second), wanted):
        wrong.append("after a checkpoint")
    second.module.load_state_dict(Net().state_dict())
    if second.module.scale.item() != 2.0:
        wrong.append("after a state dict")
    with torch.no_grad():
        engine.module.scale.copy_(torch.tensor(0.25))
    if float(engine(batch(0)).detach()) == 0 or engine.module.scale.item() != 0.25:
        wrong.append("a number that is set")
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_scalars_train_as_in_a_plain_model(ranks: Ranks, world_size: int, tmp_path: Path) -> None:
    assert ranks(run, world_size, str(tmp_path), timeout_seconds=120) == [[]] * world_size

    export(entries(tmp_path / "3")[0], tmp_path / "weights", dtype=None, file_bytes=2**30)
    assert open_weights(tmp_path / "weights")["scale"].shape == ()


def other_ways(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    wanted = {n: p.detach() for n, p in plain()[0].named_parameters()}
    if not torch.equal(weights(start(3))["scale"], torch.tensor(2.0)):
        wrong.append("at the start")
    changes: list[tuple[int, dict[str, Any]]] = [
        (2, {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}),
        (3, {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}),
    ]
    for stage, change in changes:
        engine = start(stage, **change)
        train(engine, range(STEPS))
        if not same(weights(engine), wanted):
            wrong.append(f"{change}")
    narrow = start(2, bf16={"enabled": True})
    train(narrow, range(STEPS))
    if not torch.allclose(weights(narrow)["scale"], wanted["scale"], atol=2e-2):
        wrong.append("bf16")
    torch.manual_seed(0)
    with runtime.without_weights():
        model = Net()
    deferred = start(3, model)
    train(deferred, range(1))
    if weights(deferred)["unused"] != 7.0:
        wrong.append("built without weights")
    copies = [torch.zeros_like(deferred.module.scale.to_local()) for _ in range(topology.world_size)]
    torch.distributed.all_gather(copies, deferred.module.scale.to_local().detach())
    if not all(torch.equal(one, copies[0]) for one in copies):
        wrong.append("ranks differ")
    shutdown(group)
    return wrong


def test_scalars_with_offload_other_types_and_three_ranks(ranks: Ranks) -> None:
    assert ranks(other_ways, 3, timeout_seconds=90) == [[]] * 3
