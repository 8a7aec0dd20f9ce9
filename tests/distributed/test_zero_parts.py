"""Parts of a model that are called by themselves compute and train as in a plain model, at every stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
WIDTH, VOCABULARY, ACCUMULATION = 4, 11, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bias = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.tanh(self.linear(x)))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.5 + self.bias


class Attention(nn.Module):
    """Uses a child's weight without calling the child, as nn.MultiheadAttention does."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.out.weight, self.out.bias)


class Net(nn.Module):
    """CLIP's and language models' habits: tied weights, a projection that is no module, a number."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.attention = Attention()
        self.projection = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.value = nn.Linear(WIDTH, 1)
        self.fails = False

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.attention(self.embed(tokens))
        for layer in self.layers:
            x = layer(x)
        return x

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.encode(tokens) @ self.projection, dim=-1) * self.scale.exp()

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.embed.weight)

    def score(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.value(self.encode(tokens)).squeeze(-1)

    def temperature(self) -> float:
        return self.scale.exp().item()

    def bound(self) -> None:
        self.scale.data.clamp_(max=0.2)
        with torch.no_grad():
            self.projection.mul_(0.5)

    @torch.no_grad()
    def generate(self, tokens: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            following = self.logits(self.encode(tokens))[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, following], dim=1)
        return tokens

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise ZeroDivisionError
        return self.logits(self.encode(tokens)).square().mean()


def tokens(number: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 3), generator=torch.Generator().manual_seed(number))


# Losses that a script makes of parts; each is the mean over its rows.
LOSSES: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "a head": lambda model, x: model.value(model.encode(x)).square().mean(),
    "a method with parameters": lambda model, x: model.project(x)[:, 0].square().sum(-1).mean() * 3,
    "a method with a child's": lambda model, x: model.logits(model.encode(x)).square().mean(),
    "a method of methods": lambda model, x: model.score(x).square().mean(),
    "a part of a block": lambda m, x: m.layers[0].mix(m.layers[0].linear(m.embed(x))).square().mean(),
    "twice, and the whole": lambda model, x: (
        model(x) + (model.project(x) - model.project(x.flip(1))).square().mean()
    ),
    "without a forward": lambda model, x: model.attention(model.embed(x)).square().mean(),
}


def micro_steps(loss: str) -> Iterator[tuple[bool, int]]:
    for number in range(2 * ACCUMULATION):
        yield number % ACCUMULATION == ACCUMULATION - 1, number + 10 * list(LOSSES).index(loss)


def plain_training() -> Net:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, eps=1e-2, weight_decay=0.1)
    for name, loss_of in LOSSES.items():
        for is_last, number in micro_steps(name):
            (loss_of(model, tokens(number)) / ACCUMULATION).backward()  # type: ignore[no-untyped-call]
            if is_last:
                optimizer.step()
                optimizer.zero_grad()
        model.bound()
    return model


def start(stage: int, **changes: Any) -> Engine:
    torch.manual_seed(0)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": ACCUMULATION,
        "gradient_clipping": 0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.02, "eps": 1e-2, "weight_decay": 0.1}},
        **changes,
    }
    return runtime.initialize(model=Net(), config=config, blocks=[Block])[0]


def train(engine: Engine) -> None:
    topology = engine.group.topology
    for name, loss_of in LOSSES.items():
        for _, number in micro_steps(name):
            ours = tokens(number).chunk(topology.world_size)[topology.rank]
            engine.backward(loss_of(engine.module, ours))
            engine.step()
        engine.module.bound()


def differing(engine: Engine, wanted: nn.Module, tolerance: float = 1e-5) -> list[str]:
    for unit in engine.module.modules():
        if hasattr(unit, "reshard"):
            unit.reshard()
    found = {name: p.full_tensor().detach() for name, p in engine.module.named_parameters()}
    return [n for n, p in wanted.named_parameters() if not torch.allclose(found[n], p, atol=tolerance)]


def parts(_: Topology) -> list[str]:
    group = runtime.init_distributed()
    plain, wrong = plain_training(), []
    for stage in range(4):
        engine = start(stage)
        train(engine)
        if names := differing(engine, plain):
            wrong.append(f"stage {stage}: {names} after training")
        wrong += [f"stage {stage}: {what}" for what in evaluated(engine, plain)]
    shutdown(group)
    return wrong


def evaluated(engine: Engine, plain: Net) -> list[str]:
    """Without gradients; after an exception as well, and within another one's forward."""
    model, x, wrong = engine.module, tokens(99), []
    for mode in (True, False):
        engine.train(mode)
        with torch.no_grad():
            if not torch.allclose(model.project(x), plain.project(x), atol=1e-4):
                wrong.append("project")
            if not torch.allclose(engine.score(x), plain.score(x), atol=1e-4):
                wrong.append("score, through the engine")
        if not torch.equal(model.generate(x), plain.generate(x)):
            wrong.append("generate")
    with pytest.raises((ValueError, RuntimeError)) as caught:  # of the wrong shape
        model.value(torch.ones(2, WIDTH + 1))
    if "DTensor" in str(caught.value):
        wrong.append(str(caught.value))
    with torch.no_grad():
        if not torch.allclose(engine(x), plain(x), atol=1e-4):
            wrong.append("after an exception")
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_parts_that_are_called_alone_train_as_in_a_plain_model(ranks: Ranks, world_size: int) -> None:
    assert ranks(parts, world_size, timeout_seconds=120) == [[]] * world_size


def asked_by_one(topology: Topology) -> list[str]:
    """Rank 0 logs what a method gives, in the middle of a training."""
    group = runtime.init_distributed(timeout_seconds=20)
    plain, wrong = plain_training(), []
    for stage in range(3):
        engine = start(stage)
        for name, loss_of in LOSSES.items():
            for _, number in micro_steps(name):
                ours = tokens(number).chunk(topology.world_size)[topology.rank]
                loss = loss_of(engine.module, ours)
                if topology.is_first:
                    engine.module.temperature()
                engine.backward(loss)
                engine.step()
            engine.module.bound()
        wrong += [f"stage {stage}: {name}" for name in differing(engine, plain)]
        if topology.is_first and engine.module.temperature() != pytest.approx(plain.temperature(), rel=1e-5):
            wrong.append(f"stage {stage}: what the method gives")
    shutdown(group)
    return wrong


def test_one_rank_may_ask_a_method_alone(ranks: Ranks) -> None:
    """Up to stage 2."""
    assert ranks(asked_by_one, 2, timeout_seconds=90) == [[], []]


def in_other_ways(_: Topology) -> list[str]:
    """With compute in bf16, with shards in host memory, and with blocks that recompute."""
    group = runtime.init_distributed()
    plain, wrong = plain_training(), []
    recompute = {"activation_checkpointing": {"enabled": True}}
    offloaded = {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}
    for stage, changes in ((1, recompute), (3, recompute), (3, offloaded)):
        engine = start(stage, **changes)
        train(engine)
        wrong += [f"stage {stage}, {changes}: {names}" for names in differing(engine, plain)]
    for stage in range(4):
        engine = start(stage, bf16={"enabled": True})
        train(engine)
        wrong += [f"stage {stage}, bf16: {names}" for names in differing(engine, plain, 5e-2)]
    shutdown(group)
    return wrong


def test_parts_with_other_types_and_places(ranks: Ranks) -> None:
    assert ranks(in_other_ways, 2, timeout_seconds=120) == [[], []]


def refused(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    said = []
    for stage in range(4):
        model = start(stage).module
        try:
            (torch.ones(2, WIDTH) @ model.projection).sum()
            said.append(f"stage {stage}: a raw parameter with gradients was computed with")
        except BadInput as error:
            said += [str(error)] * ("engine.follow_method" not in str(error))
        try:
            with torch.no_grad():
                found = torch.ones(2, WIDTH) @ model.projection.T
            torch.manual_seed(0)
            wanted = torch.ones(2, WIDTH) @ Net().projection.detach().T
            said += [f"stage {stage}: {found}"] * (not torch.allclose(found, wanted, atol=1e-6))
        except BadInput as error:
            is_right = stage == 3 and topology.world_size > 1 and "p.full_tensor()" in str(error)
            said += [str(error)] * (not is_right)
    shutdown(group)
    return said


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_a_script_computes_of_parameters_is_right_or_refused(ranks: Ranks, world_size: int) -> None:
    assert ranks(refused, world_size) == [[]] * world_size


class Foreign(nn.Module):
    """Its method reads a parameter in a way that its code does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0).view(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight).sum()

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ getattr(self, "wei" + "ght")).sum()


def followed(_: Topology) -> tuple[float, str]:
    group = runtime.init_distributed()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "SGD", "params": {"lr": 1.0}},
        "gradient_clipping": 0,
        "zero_optimization": {"stage": 3},
    }
    engine, *_ = runtime.initialize(model=Foreign(), config=config)
    engine.follow_method(engine.module, "hidden")
    engine.backward(engine.module.hidden(torch.ones(1, 2)))
    engine.step()
    moved = float(engine.module.weight.full_tensor()[1, 2])
    with pytest.raises(BadInput) as caught:
        engine.follow_method(engine.module, "not there")
    shutdown(group)
    return moved, str(caught.value)


def test_a_method_can_be_named(ranks: Ranks) -> None:
    for moved, said in ranks(followed, 2):
        assert moved == 4.0
        assert "no such method" in said


class Averaged(nn.Module):
    """A copy whose weights are averages of the model's, in each of the ways that scripts have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)

    def update(self, how: str, parameters: list[torch.Tensor]) -> None:
        ours = [p.data for p in self.model.parameters()]
        if how == "lerp_ of data":
            for mine, theirs in zip(ours, parameters, strict=True):
                mine.lerp_(theirs.data, 0.1)
        elif how == "add_ of detached":
            for mine, theirs in zip(ours, parameters, strict=True):
                mine.mul_(0.9).add_(theirs.detach(), alpha=0.1)
        else:
            with torch.no_grad():
                torch._foreach_lerp_(ours, parameters, 0.1)


def averages(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    for stage in range(4):
        engine = start(stage)
        torch.manual_seed(0)
        theirs, plain = Averaged(Net()), plain_training()
        engine.load_state_dict(plain.state_dict())
        with torch.no_grad():
            engine(tokens(0))
        expected = copy.deepcopy(theirs)
        for how in ("lerp_ of data", "add_ of detached", "foreach"):
            try:
                theirs.update(how, list(engine.module.parameters()))
            except BadInput as error:
                if stage < 3 or topology.world_size == 1 or "p.full_tensor()" not in str(error):
                    wrong.append(f"stage {stage}, {how}: {error}")
                continue
            expected.update(how, [p.detach() for p in plain.parameters()])
            pairs = zip(theirs.parameters(), expected.parameters(), strict=True)
            if not all(torch.allclose(p, q, atol=1e-6) for p, q in pairs):
                wrong.append(f"stage {stage}, {how}")
        # The other way round: weights are drawn to those of a plain model, at every stage.
        with torch.no_grad():
            for mine, other in zip(engine.module.parameters(), expected.parameters(), strict=True):
                mine.lerp_(other, 0.5)
            for mine, other in zip(plain.parameters(), expected.parameters(), strict=True):
                mine.lerp_(other, 0.5)
        wrong += [f"stage {stage}, into shards: {name}" for name in differing(engine, plain)]
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_averages_of_weights_are_those_of_a_plain_model(ranks: Ranks, world_size: int) -> None:
    assert ranks(averages, world_size, timeout_seconds=90) == [[]] * world_size
