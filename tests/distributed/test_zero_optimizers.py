"""Optimizers of a script's own: right, or refused by name where they compute with whole parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
Make = Callable[[Iterable[Any]], torch.optim.Optimizer]


class Lion(torch.optim.Optimizer):
    """Elementwise, and none of torch's."""

    def __init__(self, params: Iterable[Any], lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                    p.sub_(torch.sign(average * 0.9 + p.grad * 0.1), alpha=group["lr"])
                    average.lerp_(p.grad, 0.01)


class Lamb(Lion):
    """Scales each update by the parameter's norm."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad * (p.norm() / (p.grad.norm() + 1e-6)), alpha=group["lr"])


class Global(Lion):
    """Scales updates by the norm of all parameters."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            size = torch.stack([p.grad.square().sum() for p in used]).sum().sqrt()
            for p in used:
                p.sub_(p.grad / (1 + size), alpha=group["lr"])


ELEMENTWISE: dict[str, Make] = {
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "Lion": Lion,
}
OF_WHOLES: dict[str, Make] = {
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "Lamb": Lamb,
    "Global": Global,
}
OTHERS: dict[str, Make] = {"LBFGS": torch.optim.LBFGS}
if hasattr(torch.optim, "Muon"):  # torch 2.9
    OF_WHOLES["Muon"] = lambda p: torch.optim.Muon([q for q in p if q.ndim == 2], lr=0.01)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6))


def batch(number: int) -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(number))


def plain(make: Make, steps: int) -> nn.Module:
    trained = model()
    optimizer = make(list(trained.parameters()))
    for number in range(steps):
        trained(batch(number)).square().mean().backward()
        optimizer.step()
        trained.zero_grad()
    return trained


def start(make: Make, stage: int, *, late: bool = False) -> Engine:
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0,
        "zero_optimization": {"stage": stage},
    }
    built = model()
    if late:
        optimizer: Any = lambda groups: make(groups[0]["params"])  # noqa: E731
    else:
        optimizer = make(list(built.parameters()))
    return runtime.initialize(model=built, optimizer=optimizer, config=config)[0]


def train(engine: Engine, steps: range) -> None:
    topology = engine.group.topology
    for number in steps:
        ours = batch(number).chunk(topology.world_size)[topology.rank]
        engine.backward(engine(ours).square().mean())
        engine.step()


def differ(engine: Engine, wanted: nn.Module) -> bool:
    for unit in engine.module.modules():
        if hasattr(unit, "reshard"):
            unit.reshard()
    pairs = zip(engine.module.parameters(), wanted.parameters(), strict=True)
    return not all(torch.allclose(p.full_tensor(), q, atol=1e-5) for p, q in pairs)  # type: ignore[operator]


def trained(topology: Topology, folder: str) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    for name, make in (ELEMENTWISE | OF_WHOLES | OTHERS).items():
        for stage in (0, 2, 3):
            is_cut = stage > 0 and topology.world_size > 1
            try:
                engine = start(make, stage, late=name in ("Lion", "Lamb"))
                train(engine, range(2))
                engine.save_checkpoint(f"{folder}/{name}{stage}")
                resumed = start(make, stage)
                resumed.load_checkpoint(f"{folder}/{name}{stage}")
                train(resumed, range(2, 4))
                is_right = name not in OTHERS and (name in ELEMENTWISE or not is_cut)
                if not is_right or differ(resumed, plain(make, 4)):
                    wrong.append(f"{name}, stage {stage}")
            except BadInput as error:
                is_refused = f" {name}: it computes with whole parameters" in str(error)
                if name in OTHERS:
                    is_refused = f" {name}: an optimizer that calls the forward" in str(error)
                if name in ELEMENTWISE or not (is_cut or name in OTHERS) or not is_refused:
                    wrong.append(f"{name}, stage {stage}: {error}")
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_optimizer_is_right_or_refused_by_name(ranks: Ranks, world_size: int, tmp_path: Path) -> None:
    assert ranks(trained, world_size, str(tmp_path), timeout_seconds=150) == [[]] * world_size
