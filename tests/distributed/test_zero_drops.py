"""Gradients that a script drops are gone at every stage; what it accumulates without a step counts once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
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

# In fp32; with narrow shards; with gradients that wait in another type than they are computed in.
TYPES: list[dict[str, Any]] = [
    {},
    {"bf16": {"enabled": True}},
    {"bf16": {"enabled": True}, "communication_data_type": "fp32"},
]


class Two(nn.Module):
    """A bias in a unit of its own and one that stays with the root; the loss has gradient 1 for each."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 3)
        self.outer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).sum() + self.outer(torch.zeros(1, 3)).sum()


def at_each_stage(topology: Topology, act: Callable[..., Any], *arguments: Any) -> list[Any]:
    group = runtime.init_distributed()
    found = [act(stage, *arguments) for stage in range(4)]
    shutdown(group)
    return found


def config_of(stage: int, accumulation: int = 2, **changes: Any) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0,
        "optimizer": {"type": "SGD", "params": {"lr": 1.0}},
        "zero_optimization": {"stage": stage},
        **changes,
    }


def start(config: dict[str, Any]) -> Engine:
    torch.manual_seed(0)
    engine, *_ = runtime.initialize(model=Two(), config=config, blocks=[nn.Linear])
    return engine


def backward(engine: Engine, factor: float) -> None:
    engine.backward(engine(torch.zeros(1, 1)) * factor)


def moved(engine: Engine, act: Callable[[Engine], None]) -> float:
    """What each of the six biases moves by; a forward gives their sum."""

    def total() -> float:
        with torch.no_grad():
            return float(engine(torch.zeros(1, 1)).float().item())

    before = total()
    act(engine)
    return round((before - total()) / 6, 1)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def by_hand(engine: Engine) -> None:
    for parameter in engine.module.parameters():
        parameter.grad = None


def by_submodules(engine: Engine) -> None:
    engine.module.inner.zero_grad()
    engine.module.outer.zero_grad()


def after_registration_changed(engine: Engine) -> None:
    for unit in engine.module.modules():
        if hasattr(unit, "reshard"):
            unit.reshard()
    engine.module.zero_grad()


DROPS: dict[str, Callable[[Engine], None]] = {
    "engine.zero_grad": lambda engine: engine.zero_grad(),
    "optimizer.zero_grad": lambda engine: engine.optimizer.zero_grad(),
    "optimizer.zero_grad to zeros": lambda engine: engine.optimizer.zero_grad(set_to_none=False),
    "module.zero_grad": lambda engine: engine.module.zero_grad(),
    "module.zero_grad to zeros": lambda engine: engine.module.zero_grad(set_to_none=False),
    "each submodule's zero_grad": by_submodules,
    "module.zero_grad while shards are registered": after_registration_changed,
    "p.grad = None": by_hand,
}


def drop_everywhere(stage: int) -> dict[str, float]:
    found = {}
    for index, changes in enumerate(TYPES):
        for name, drop in DROPS.items():
            if name == "p.grad = None" and stage < 2 and index == 2:
                continue  # waits in fp32 beside bf16 parameters, where no .grad can show it

            def act(engine: Engine, drop: Callable[[Engine], None] = drop) -> None:
                backward(engine, 64.0)
                drop(engine)
                for _ in range(2):
                    backward(engine, 2.0)
                    engine.step()

            found[f"{index} {name}"] = moved(start(config_of(stage, **changes)), act)
    found["a client's optimizer"] = client_drops(stage)
    return found


def client_drops(stage: int) -> float:
    torch.manual_seed(0)
    model = Two()
    optimizer = sgd(model.parameters())
    config = {key: value for key, value in config_of(stage).items() if key != "optimizer"}
    engine, *_ = runtime.initialize(model=model, optimizer=optimizer, config=config, blocks=[nn.Linear])

    def act(engine: Engine) -> None:
        backward(engine, 64.0)
        optimizer.zero_grad()
        for _ in range(2):
            backward(engine, 2.0)
            engine.step()

    return moved(engine, act)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_dropped_gradient_is_gone(ranks: Ranks, world_size: int) -> None:
    for found in ranks(at_each_stage, world_size, drop_everywhere, timeout_seconds=240):
        wrong = [{name: by for name, by in at_stage.items() if by != 2.0} for at_stage in found]
        assert wrong == [{}] * 4


def load_in_the_middle(stage: int, folder: str) -> list[tuple[float, int]]:
    found = []
    for index, module_only in enumerate((False, True)):
        engine = start(config_of(stage))
        at = f"{folder}/{stage}-{index}"
        engine.save_checkpoint(at)

        def act(engine: Engine, at: str = at, module_only: bool = module_only) -> None:
            backward(engine, 64.0)
            engine.step()
            engine.load_checkpoint(at, load_module_only=module_only)
            for _ in range(2):
                backward(engine, 2.0)
                engine.step()

        found.append((moved(engine, act), engine.global_steps))
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_load_in_the_middle_of_a_step_drops_it(ranks: Ranks, world_size: int, tmp_path: Path) -> None:
    for found in ranks(at_each_stage, world_size, load_in_the_middle, str(tmp_path), timeout_seconds=240):
        assert found == [[(2.0, 1), (2.0, 1)]] * 4


def without_sync(stage: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def within_and_after(engine: Engine) -> None:
        with engine.no_sync():
            backward(engine, 1.0)
        backward(engine, 2.0)
        engine.step()

    def within_alone(engine: Engine) -> None:
        with engine.no_sync(), engine.no_sync():
            backward(engine, 1.0)
        engine.step()

    def interrupted(engine: Engine) -> None:
        with contextlib.suppress(ZeroDivisionError), engine.no_sync():
            backward(engine, 1.0)
            raise ZeroDivisionError
        within_and_after(engine)

    def step_within(engine: Engine) -> None:
        with engine.no_sync():
            with pytest.raises(BadInput, match="no_sync"):
                engine.step()
            backward(engine, 3.0)
        engine.step()

    for act in (within_and_after, within_alone, interrupted, step_within):
        engine = start(config_of(stage, 1))
        found[act.__name__] = moved(engine, act), engine.global_steps

    def twice(engine: Engine) -> None:
        within_and_after(engine)
        within_and_after(engine)

    found["two micro-steps"] = moved(start(config_of(stage, 2)), twice)
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_no_sync_accumulates_and_leaves_nothing_behind(ranks: Ranks, world_size: int) -> None:
    for found in ranks(at_each_stage, world_size, without_sync, timeout_seconds=240):
        assert found == 4 * [
            {
                "within_and_after": (3.0, 1),
                "within_alone": (1.0, 1),
                "interrupted": (4.0, 1),
                "step_within": (3.0, 1),
                "two micro-steps": 3.0,
            }
        ]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def adversaries() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    return Plain(), Plain()


def play(drop: Callable[[int], None], call: Any, back: Any, step: Any) -> None:
    """The generator's losses go through the discriminator, whose gradients of them are dropped."""
    for _ in range(2):
        for index in (0, 1):
            drop(index)
            for _ in range(2):
                out = call(1, call(0, torch.ones(1, 2)))
                back(index, (out * (3.0 if index else -1.0)).sum())
                step(index)


def two_engines(stage: int) -> list[float]:
    engines = [runtime.initialize(model=m, config=config_of(stage))[0] for m in adversaries()]
    play(
        lambda index: engines[index].zero_grad(),
        lambda index, x: engines[index](x),
        lambda index, loss: engines[index].backward(loss),
        lambda index: engines[index].step(),
    )
    with torch.no_grad():
        found = [engine(torch.eye(2)).flatten().tolist() for engine in engines]
    return [value for values in found for value in values]


def plain_adversaries() -> list[float]:
    models = adversaries()
    optimizers = [sgd(model.parameters()) for model in models]
    counts = [0, 0]

    def step(index: int) -> None:
        counts[index] += 1
        if counts[index] % 2 == 0:
            optimizers[index].step()
            optimizers[index].zero_grad()

    play(
        lambda index: optimizers[index].zero_grad(),
        lambda index, x: models[index](x),
        lambda _, loss: (loss / 2).backward(),
        step,
    )
    with torch.no_grad():
        found = [model(torch.eye(2)).flatten().tolist() for model in models]
    return [value for values in found for value in values]


@pytest.mark.parametrize("world_size", [1, 2])
def test_two_engines_that_share_a_graph_are_two_plain_models(ranks: Ranks, world_size: int) -> None:
    expected = plain_adversaries()

    for found in ranks(at_each_stage, world_size, two_engines, timeout_seconds=240):
        assert found == [pytest.approx(expected, abs=1e-4)] * 4


def steps_without_a_backward(_: Topology) -> list[int]:
    group = runtime.init_distributed()
    counts = []
    for stage in range(4):
        torch.manual_seed(0)
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 3,
            "zero_optimization": {"stage": stage},
            "optimizer": {"type": "SGD", "params": {"lr": 1.0}},
        }
        engine, *_ = runtime.initialize(model=nn.Linear(2, 2), config=config)
        engine(torch.ones(1, 2))  # leaves whole parameters behind
        for _ in range(3):
            engine.step()
        counts.append(engine.global_steps)
    shutdown(group)
    return counts


def test_a_step_may_have_no_backward(ranks: Ranks) -> None:
    """FSDP2 was asked for shards while whole parameters were in their place, and refused in its own words."""
    assert ranks(steps_without_a_backward, 2) == [[1, 1, 1, 1]] * 2
