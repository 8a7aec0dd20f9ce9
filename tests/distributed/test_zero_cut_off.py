"""What an exception cuts off leaves nothing behind: the training that goes on is that of a plain model."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed


class Failing(torch.autograd.Function):
    """Passes on what it is given; its backward fails where it is told to."""

    now: ClassVar[bool] = False

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        if Failing.now:
            raise ArithmeticError
        return gradients[0]


class Net(nn.Module):
    """Units before and after the place where a pass is cut off, and a parameter of the root."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 5), nn.Linear(5, 3), nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.fails = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = Failing.apply(self.second(torch.tanh(self.first(x))))  # type: ignore[no-untyped-call]
        if self.fails:
            raise ZeroDivisionError
        return (self.last(x) * self.scale).square().mean()


class Plain:
    """One process, the whole batch, autograd and an optimizer, under the engine's words."""

    def __init__(self, model: nn.Module) -> None:
        self.module, self.micro_steps = model, 0
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

    def __call__(self, x: torch.Tensor) -> Any:
        return self.module(x)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        self.micro_steps += 1
        if self.micro_steps % 2 == 0:
            for parameter in self.module.parameters():
                if parameter.grad is not None:
                    parameter.grad /= 2
            self.optimizer.step()
            self.optimizer.zero_grad()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def batch(engine: Any, number: int) -> torch.Tensor:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(number))
    if isinstance(engine, Plain):
        return x
    topology = engine.group.topology
    return x.chunk(topology.world_size)[topology.rank]


def micro_steps(engine: Any, *numbers: int) -> None:
    for number in numbers:
        engine.backward(engine(batch(engine, number)))
        engine.step()


def failing_backward(engine: Any, number: int) -> None:
    loss = engine(batch(engine, number))
    Failing.now = True
    with pytest.raises(ArithmeticError):
        engine.backward(loss)
    Failing.now = False


def failing_forward(engine: Any, number: int) -> None:
    engine.module.fails = True
    with pytest.raises(ZeroDivisionError):
        engine(batch(engine, number))
    engine.module.fails = False


def clamp(engine: Any) -> None:
    for parameter in engine.module.parameters():
        parameter.data.clamp_(-0.1, 0.1)


def backward_then_zero(engine: Any) -> None:
    micro_steps(engine, 0)
    failing_backward(engine, 1)
    engine.zero_grad()
    micro_steps(engine, 2, 3, 4)


def backward_at_the_boundary(engine: Any) -> None:
    micro_steps(engine, 0, 1, 2)
    failing_backward(engine, 3)
    engine.zero_grad()
    micro_steps(engine, 4, 5, 6)


def backward_alone(engine: Any) -> None:
    """What it came to counts, as it does in a plain model."""
    failing_backward(engine, 0)
    micro_steps(engine, 1, 2, 3, 4)


def backward_without_sync(engine: Any) -> None:
    with engine.no_sync():
        engine.backward(engine(batch(engine, 0)))
        failing_backward(engine, 1)
    engine.zero_grad()
    micro_steps(engine, 2, 3, 4, 5)


def forward_alone(engine: Any) -> None:
    micro_steps(engine, 0)
    failing_forward(engine, 1)
    micro_steps(engine, 2, 3, 4)


def forward_then_clamp(engine: Any) -> None:
    micro_steps(engine, 0, 1)
    failing_forward(engine, 2)
    clamp(engine)
    micro_steps(engine, 3, 4)


def evaluation_then_clamp(engine: Any) -> None:
    micro_steps(engine, 0, 1)
    with torch.no_grad():
        engine(batch(engine, 2))
    clamp(engine)
    micro_steps(engine, 3, 4)


def evaluation_of_a_part_then_clamp(engine: Any) -> None:
    micro_steps(engine, 0, 1)
    with torch.no_grad():
        engine.module.last(batch(engine, 2))
    clamp(engine)
    micro_steps(engine, 3, 4)


def recomputed_whole(engine: Any) -> None:
    """The engine's call is recomputed within the backward, which ends it early by an exception."""
    for number in range(4):
        loss = checkpoint(engine, batch(engine, number), use_reentrant=False)
        engine.backward(loss)
        engine.step()


def evaluations_of_different_length(engine: Any) -> None:
    """Ranks have different numbers of batches: up to stage 2 no forward of one may wait for the other."""
    micro_steps(engine, 0, 1)
    alone = not isinstance(engine, Plain) and engine.zero_optimization_stage() < 3
    engine.module.eval()
    with torch.no_grad():
        for _ in range(2 + (engine.group.topology.rank if alone else 0)):
            engine(batch(engine, 2))
    engine.module.train()
    clamp(engine)
    micro_steps(engine, 3, 4)


SCRIPTS: list[Callable[[Any], None]] = [
    backward_then_zero,
    backward_at_the_boundary,
    backward_alone,
    backward_without_sync,
    forward_alone,
    forward_then_clamp,
    evaluation_then_clamp,
    evaluation_of_a_part_then_clamp,
    recomputed_whole,
    evaluations_of_different_length,
]


def model() -> Net:
    torch.manual_seed(0)
    return Net()


def start(stage: int) -> Engine:
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "SGD", "params": {"lr": 0.5, "momentum": 0.9}},
    }
    return runtime.initialize(model=model(), config=config, blocks=[nn.Linear])[0]


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    for unit in engine.module.modules():
        if hasattr(unit, "reshard"):
            unit.reshard()
    return {name: p.full_tensor().detach() for name, p in engine.module.named_parameters()}


def differing(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    for script in SCRIPTS:
        plain = Plain(model())
        script(plain)
        wanted = plain.module.state_dict()
        for stage in range(4):
            engine = start(stage)
            script(engine)
            found = weights(engine)
            if names := [n for n in wanted if not torch.allclose(found[n], wanted[n], rtol=1e-3, atol=1e-5)]:
                wrong.append(f"stage {stage}, {script.__name__}: {', '.join(names)}")
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_training_goes_on_after_what_was_cut_off(ranks: Ranks, world_size: int) -> None:
    assert ranks(differing, world_size, timeout_seconds=240) == [[]] * world_size


def what_a_model_keeps(_: Topology) -> tuple[bool, int]:
    """Whether the optimizer lives on with the model, and how many forwards of an evaluation are noted."""
    group = runtime.init_distributed()
    engine = start(1)
    micro_steps(engine, 0, 1)
    engine.eval()
    with torch.no_grad():
        for _number in range(20):
            engine(batch(engine, 2))
    module, optimizer = engine.module, weakref.ref(engine.optimizer)
    del engine
    gc.collect()
    state = next(unit for unit in module.modules() if hasattr(unit, "reshard"))._get_fsdp_state()  # type: ignore[operator]
    shutdown(group)
    return optimizer() is not None, len(state._comm_ctx.post_forward_order)


def test_a_model_keeps_neither_its_optimizer_nor_notes_of_evaluations(ranks: Ranks) -> None:
    assert ranks(what_a_model_keeps, 2) == [(False, 0)] * 2
