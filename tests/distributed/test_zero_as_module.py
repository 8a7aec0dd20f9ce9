"""The engine is an nn.Module: the one that it trains, under the same names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
WIDTH = 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, 5), nn.Linear(5, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.register_buffer("shift", torch.zeros(WIDTH))
        self.note = "mine"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x))) * self.scale + self.shift


class Around(nn.Module):
    """A script's module that holds the engine."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def start(stage: int) -> Engine:
    torch.manual_seed(0)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "SGD", "params": {"lr": 0.1}},
    }
    return runtime.initialize(model=Net(), config=config, blocks=[nn.Linear])[0]


def asked(engine: Engine, plain: nn.Module) -> list[tuple[str, bool]]:
    around, model = Around(engine), engine.module
    seen: list[int] = []
    handle = engine.register_forward_hook(lambda *_: seen.append(1))
    engine(torch.ones(1, WIDTH))
    handle.remove()
    modules = list(engine.modules())
    engine.eval()
    evaluates = (engine.training, model.training, model.last.training)
    engine.train()
    names = list(engine.named_parameters())
    return [
        ("it is a module", isinstance(engine, nn.Module)),
        ("its modules", len(modules) == len(set(modules)) == 3 and modules[0] is model),
        ("its parameters", [n for n, _ in names] == [n for n, _ in plain.named_parameters()]),
        ("the same ones", all(p is q for (_, p), q in zip(names, model.parameters(), strict=True))),
        ("its own alone", [n for n, _ in engine.named_parameters(recurse=False)] == ["scale"]),
        ("its buffers", [n for n, _ in engine.named_buffers()] == ["shift"]),
        ("its children", list(engine.children()) == [model.first, model.last]),
        ("a part by name", engine.get_submodule("first") is model.first),
        ("a parameter by name", engine.get_parameter("last.weight") is model.last.weight),
        ("what it has not", engine.note == "mine" and not hasattr(engine, "no such thing")),
        ("its hooks", seen == [1]),
        ("its mode", evaluates == (False, False, False) and engine.training and model.training),
        ("around it", [n for n, _ in around.named_parameters()] == [f"inner.{n}" for n, _ in names]),
        ("what is printed", "first" in repr(engine)),
    ]


def states(engine: Engine, plain: nn.Module) -> list[tuple[str, bool]]:
    """Up to stage 2, where a rank has whole weights; loading works at every stage."""
    wanted = {name: value + 1 for name, value in plain.state_dict().items()}
    engine.load_state_dict(wanted)
    with torch.no_grad():
        engine(torch.ones(1, WIDTH))
    found: dict[str, Any] = {n: p.full_tensor() for n, p in engine.module.named_parameters()}
    results = [("loaded", all(torch.equal(found[n], wanted[n]) for n in found))]
    around = Around(engine)
    around.load_state_dict({f"inner.{n}": v + 1 for n, v in wanted.items()})
    found = {n: p.full_tensor() for n, p in engine.module.named_parameters()}
    results.append(("loaded from around", all(torch.equal(found[n], wanted[n] + 1) for n in found)))
    if engine.zero_optimization_stage() < 3:
        with torch.no_grad():
            engine(torch.ones(1, WIDTH))
        results.append(("a state dict's names", list(engine.state_dict()) == list(wanted)))
        names = list(around.state_dict())
        results.append(("the names from around", names == [f"inner.{n}" for n in wanted]))
    return results


def as_module(_: Topology) -> list[str]:
    group = runtime.init_distributed()
    plain, wrong = Net(), []
    for stage in range(4):
        engine = start(stage)
        results = asked(engine, copy.deepcopy(plain)) + states(engine, plain)
        wrong += [f"stage {stage}: {what}" for what, is_right in results if not is_right]
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_engine_is_the_module_that_it_trains(ranks: Ranks, world_size: int) -> None:
    assert ranks(as_module, world_size, timeout_seconds=90) == [[]] * world_size
