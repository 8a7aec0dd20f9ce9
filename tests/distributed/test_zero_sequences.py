"""Whatever a script calls in whatever order, the engine is a plain model with a plain optimizer."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed

CALLS = ["forward", "backward", "step"] * 3 + [
    "engine.zero_grad",
    "optimizer.zero_grad",
    "module.zero_grad",
    "no_sync",
    "no_sync ends",
    "save",
    "load",
    "clamp",
]
WIDTH = 3


class Net(nn.Module):
    """Two units and the root; sizes that two ranks do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 5), nn.Linear(5, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor, both: bool) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        return (self.second(hidden) * self.scale).square().mean() if both else hidden.square().mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A sequence of calls and how the training is configured."""

    seed: int
    stage: int
    accumulation: int
    optimizer: str
    clipping: float
    engines: int
    calls: tuple[str, ...]


def case_of(seed: int) -> Case:
    draw = random.Random(seed)
    # Half of them begin within a micro-step, which is where gradients are left behind.
    begin = draw.choice([(), ("forward", "backward")])
    return Case(
        seed=seed,
        stage=seed % 4,
        accumulation=draw.randint(1, 3),
        optimizer=draw.choice(["AdamW", "SGD"]),
        clipping=draw.choice([0.0, 0.0, 0.3]),
        engines=draw.choice([1, 1, 2]),
        calls=(*begin, *draw.choices(CALLS, k=draw.randint(4, 12) - len(begin))),
    )


class Training(Protocol):
    """What both forms of a training can be told."""

    def forward(self, x: torch.Tensor, both: bool, factor: float) -> torch.Tensor: ...
    def backward(self, loss: torch.Tensor) -> None: ...
    def step(self) -> bool: ...
    def zero_grad(self, how: str) -> None: ...
    def enter(self) -> None: ...
    def leave(self) -> None: ...
    def save(self) -> None: ...
    def load(self) -> None: ...
    def clamp(self) -> None: ...


class PlainTraining:
    """One process, the whole batch, autograd and an optimizer."""

    def __init__(self, case: Case, number: int) -> None:
        torch.manual_seed(case.seed + number)
        self.case, self.model = case, Net()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(self.model.parameters(), lr=0.05, eps=1e-2, weight_decay=0.1)
            if case.optimizer == "AdamW"
            else torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        )
        self.micro_steps = self.global_steps = self.depth = 0
        self.saved: Any = None

    def forward(self, x: torch.Tensor, both: bool, factor: float) -> torch.Tensor:
        loss: torch.Tensor = self.model(x, both) * factor
        return loss

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> bool:
        if self.depth:
            return False
        self.micro_steps += 1
        if self.micro_steps % self.case.accumulation:
            return False
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= self.case.accumulation
        if self.case.clipping:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.case.clipping)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.global_steps += 1
        return True

    def zero_grad(self, how: str) -> None:
        self.optimizer.zero_grad()

    def enter(self) -> None:
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1

    def save(self) -> None:
        states = self.model.state_dict(), self.optimizer.state_dict(), self.global_steps
        self.saved = copy.deepcopy(states)

    def load(self) -> None:
        model, optimizer, self.global_steps = copy.deepcopy(self.saved)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.optimizer.zero_grad()
        self.micro_steps = self.global_steps * self.case.accumulation

    def clamp(self) -> None:
        for parameter in self.model.parameters():
            parameter.data.clamp_(-0.4, 0.4)


class EngineTraining:
    """The engine."""

    def __init__(self, case: Case, number: int, folder: str) -> None:
        torch.manual_seed(case.seed + number)
        options: dict[str, Any] = {"lr": 0.05, "momentum": 0.9}
        if case.optimizer == "AdamW":
            options = {"lr": 0.05, "eps": 1e-2, "weight_decay": 0.1}
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": case.accumulation,
            "gradient_clipping": case.clipping,
            "zero_optimization": {"stage": case.stage},
            "optimizer": {"type": case.optimizer, "params": options},
        }
        self.engine, *_ = runtime.initialize(model=Net(), config=config, blocks=[nn.Linear])
        self.folder, self.within = f"{folder}/{case.seed}/{number}", [ExitStack()]

    def forward(self, x: torch.Tensor, both: bool, factor: float) -> torch.Tensor:
        topology = self.engine.group.topology
        loss: torch.Tensor = self.engine(x.chunk(topology.world_size)[topology.rank], both) * factor
        return loss

    def backward(self, loss: torch.Tensor) -> None:
        self.engine.backward(loss)

    def step(self) -> bool:
        before = self.engine.global_steps
        try:
            self.engine.step()
        except BadInput:
            assert len(self.within) > 1
        return self.engine.global_steps > before

    def zero_grad(self, how: str) -> None:
        owner: Any = {"engine": self.engine, "optimizer": self.engine.optimizer}.get(how, self.engine.module)
        owner.zero_grad()

    def enter(self) -> None:
        self.within.append(ExitStack())
        self.within[-1].enter_context(self.engine.no_sync())

    def leave(self) -> None:
        self.within.pop().close()

    def save(self) -> None:
        self.engine.save_checkpoint(self.folder)

    def load(self) -> None:
        self.engine.load_checkpoint(self.folder)

    def clamp(self) -> None:
        for parameter in self.engine.module.parameters():
            parameter.data.clamp_(-0.4, 0.4)


class Player:
    """Calls what makes sense at that point of the sequence; both forms leave out the same."""

    def __init__(self, trainings: Sequence[Training], case: Case) -> None:
        self.trainings, self.case, self.draw = trainings, case, random.Random(case.seed + 1)
        self.losses: list[torch.Tensor] = []
        self.depth, self.saved, self.fresh = ([value] * len(trainings) for value in (0, False, True))

    def play(self) -> None:
        for number, call in enumerate(self.case.calls):
            x = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(97 * self.case.seed + number))
            self._call(call, self.draw.randrange(len(self.trainings)), x)

    def _call(self, call: str, who: int, x: torch.Tensor) -> None:
        training = self.trainings[who]
        acts: dict[str, Callable[[], None]] = {"save": training.save, "load": training.load}
        if call == "forward":
            self._forward(who, x)
        elif call == "backward" and self.losses:
            training.backward(self.losses.pop())
        elif call == "step":
            updated = training.step()
            self.fresh[who] = updated or self.fresh[who]
            self.losses = [] if updated else self.losses  # their graph is of weights that are gone
        elif call.endswith("zero_grad"):
            training.zero_grad(call.split(".")[0])
        elif call == "no_sync":
            training.enter()
            self.depth[who] += 1
        elif call == "no_sync ends" and self.depth[who]:
            training.leave()
            self.depth[who] -= 1
        elif call in acts and (call == "save" or self.saved[who]):
            acts[call]()
            self.saved[who] = True
            if call == "load":
                self.losses, self.fresh[who] = [], True
        elif call == "clamp" and self.fresh[who]:  # between steps, as scripts do that bound weights
            training.clamp()

    def _forward(self, who: int, x: torch.Tensor) -> None:
        """Of one training, or a loss that two of them share, as those of a GAN."""
        shared = len(self.trainings) > 1 and self.draw.random() < 0.5
        taking = list(range(len(self.trainings))) if shared else [who]
        parts = []
        for one in taking:
            parts.append(
                self.trainings[one].forward(x, self.draw.random() < 0.6, self.draw.choice([1.0, 40.0]))
            )
            self.fresh[one] = False
        self.losses.append(torch.stack(parts).sum())


def compare(case: Case, folder: str) -> str | None:
    plain = [PlainTraining(case, number) for number in range(case.engines)]
    ours = [EngineTraining(case, number, folder) for number in range(case.engines)]
    Player(plain, case).play()
    try:
        Player(ours, case).play()
        found = [_difference(one, other) for one, other in zip(plain, ours, strict=True)]
        return next((difference for difference in found if difference is not None), None)
    finally:
        for within in (within for one in ours for within in reversed(one.within)):
            within.close()


def _difference(plain: PlainTraining, ours: EngineTraining) -> str | None:
    engine, wanted = ours.engine, plain.model.state_dict()
    counts = engine.micro_steps, engine.global_steps
    if counts != (plain.micro_steps, plain.global_steps):
        return f"counts {counts}, not {(plain.micro_steps, plain.global_steps)}"
    with torch.no_grad():
        loss = engine(torch.ones(1, WIDTH), True)
        if not torch.allclose(loss, plain.model(torch.ones(1, WIDTH), True), rtol=1e-3, atol=1e-5):
            return f"a loss of {loss.item()}, not {plain.model(torch.ones(1, WIDTH), True).item()}"
    if engine.zero_optimization_stage() < 3 and engine.group.topology.is_first:
        found = engine.module.state_dict()
        if type(found["scale"]) is not torch.Tensor:
            return f"a state dict of {type(found['scale']).__name__}"
        if wrong := _differing(found, wanted):
            return f"state dict: {wrong}"
    for unit in engine.module.modules():
        if hasattr(unit, "reshard"):
            unit.reshard()
    shards = {name: p.full_tensor().detach() for name, p in engine.module.named_parameters()}
    return f"shards: {wrong}" if (wrong := _differing(shards, wanted)) else None


def _differing(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    return [n for n in wanted if not torch.allclose(found[n], wanted[n], rtol=1e-3, atol=1e-5)]


def compare_all(topology: Topology, seeds: range, folder: str) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    for seed in seeds:
        case = case_of(seed)
        if (difference := compare(case, folder)) is not None:
            wrong.append(f"{case}: {difference}")
    shutdown(group)
    return wrong


@pytest.mark.parametrize(
    ("world_size", "seeds"),
    [(1, range(500, 600)), (2, range(40)), pytest.param(2, range(500), marks=pytest.mark.long)],
)
def test_any_sequence_of_calls_is_a_plain_training(
    ranks: Ranks, world_size: int, seeds: range, tmp_path: Path
) -> None:
    for wrong in ranks(compare_all, world_size, seeds, str(tmp_path), timeout_seconds=500):
        assert wrong == []
