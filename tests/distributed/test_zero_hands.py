"""Parameters in a script's hands: what is set whole takes effect, what is read is whole."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
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

X = torch.ones(1, 3)


class Net(nn.Module):
    """Sizes that two ranks do not divide, and a parameter of which the second rank has nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x))) * self.scale


def start(stage: int, **changes: Any) -> Engine:
    torch.manual_seed(0)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.1, "eps": 0.01}},
        **changes,
    }
    return runtime.initialize(model=Net(), config=config, blocks=[nn.Linear])[0]


def other() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return Net().state_dict()


def train(engine: Engine) -> None:
    engine.backward(engine(X).float().square().mean())
    engine.step()


def assigned(engine: Engine) -> None:
    for name, parameter in engine.module.named_parameters():
        parameter.data = other()[name]


def copied_to_data(engine: Engine) -> None:
    for name, parameter in engine.module.named_parameters():
        parameter.data.copy_(other()[name])


@torch.no_grad()
def copied(engine: Engine) -> None:
    for name, parameter in engine.module.named_parameters():
        parameter.copy_(other()[name])


def copied_after_evaluation(engine: Engine) -> None:
    engine.eval()
    with torch.no_grad():
        engine(X)
    copied_to_data(engine)
    engine.train()


def from_a_vector(engine: Engine) -> None:
    vector = torch.cat([other()[name].flatten() for name, _ in engine.module.named_parameters()])
    nn.utils.vector_to_parameters(vector, engine.module.parameters())


def loaded(engine: Engine) -> None:
    assert str(engine.module.load_state_dict(other())) == "<All keys matched successfully>"


def loaded_by_parts(engine: Engine) -> None:
    state = other()
    for name in ("first", "last"):
        part = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(name)}
        getattr(engine.module, name).load_state_dict(part)
    engine.module.load_state_dict({"scale": state["scale"]}, strict=False)


def swapped(engine: Engine) -> None:
    """As averages of weights are put in the model's place, which were kept as its parameters are."""
    kept = [p.data.clone() for p in engine.module.parameters()]
    loaded(engine)
    averages = [p.data.clone() for p in engine.module.parameters()]
    for values in (kept, averages):
        for parameter, value in zip(engine.module.parameters(), values, strict=True):
            parameter.data = value


WAYS: list[Callable[[Engine], None]] = [
    assigned,
    copied_to_data,
    copied,
    copied_after_evaluation,
    from_a_vector,
    loaded,
    loaded_by_parts,
    swapped,
]


def set_whole(_: Topology) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    plain = Net()
    plain.load_state_dict(other())
    wanted = plain(X)
    for stage in range(4):
        for changes in ({}, {"bf16": {"enabled": True}}):
            for way in WAYS:
                engine = start(stage, **changes)
                train(engine)
                way(engine)
                masters = {n: p.full_tensor().detach() for n, p in engine.module.named_parameters()}
                names = [n for n, value in other().items() if not torch.equal(masters[n], value)]
                with torch.no_grad():
                    if not torch.allclose(engine(X).float(), wanted, atol=1e-2 if changes else 1e-5):
                        names.append("its output")
                wrong += [f"stage {stage}, {changes}, {way.__name__}: {names}"] * bool(names)
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_is_set_whole_takes_effect(ranks: Ranks, world_size: int) -> None:
    assert ranks(set_whole, world_size, timeout_seconds=240) == [[]] * world_size


def read_back(value: Any) -> Any:
    content = io.BytesIO()
    torch.save(value, content)
    content.seek(0)
    return torch.load(content, weights_only=True)


def state_read_back(engine: Engine) -> None:
    engine.optimizer.load_state_dict(read_back(engine.optimizer.state_dict()))


def deep_copied(engine: Engine) -> float:
    """A copy that is changed is saved as it is, not as the model is."""
    with torch.no_grad():
        mine = copy.deepcopy(engine.module.first.weight).zero_()
    return float(read_back([mine.detach()])[0].norm())


READS: dict[str, Callable[[Engine], Any]] = {
    "a norm": lambda engine: engine.module.first.weight.norm().item(),
    "a sum of a copy": lambda engine: float(engine.module.first.weight.data.clone().sum()),
    "a question": lambda engine: bool((engine.module.first.weight > 0.4).any()),
    "saved data": lambda engine: read_back({"w": engine.module.first.weight.data})["w"].norm().item(),
    "saved copies": deep_copied,
    "saved states": state_read_back,
}


def read(_: Topology) -> list[dict[str, Any]]:
    group = runtime.init_distributed()
    found = []
    for stage in range(4):
        engine = start(stage)
        train(engine)
        found.append({})
        for name, act in READS.items():
            try:
                found[-1][name] = act(engine)
            except BadInput as e:
                found[-1][name] = str(e)
        train(engine)
        found[-1]["weights"] = [p.full_tensor().flatten().tolist() for p in engine.module.parameters()]
    shutdown(group)
    return found


def assert_whole(found: dict[str, Any], plain: nn.Linear) -> None:
    assert found["a norm"] == pytest.approx(plain.weight.norm().item(), rel=1e-4)
    assert found["a sum of a copy"] == pytest.approx(plain.weight.sum().item(), rel=1e-3)
    assert found["a question"] is True
    assert found["saved data"] == pytest.approx(plain.weight.norm().item(), rel=1e-4)
    assert found["saved copies"] == 0.0
    assert found["saved states"] is None


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_is_read_is_whole_or_an_error(ranks: Ranks, world_size: int) -> None:
    torch.manual_seed(0)
    plain = Net()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, eps=0.01, weight_decay=0.0)
    plain(X).square().mean().backward()
    optimizer.step()

    for found in ranks(read, world_size, timeout_seconds=240):
        for stage in range(4):
            if stage == 0 or world_size == 1:
                assert_whole(found[stage], plain.first)
            else:
                for name in ("a norm", "a sum of a copy", "a question"):
                    assert "p.full_tensor()" in found[stage][name]
                for name in ("saved data", "saved copies", "saved states"):
                    assert "engine.save_checkpoint" in found[stage][name]
        for at_stage in found[1:]:
            for values, wanted in zip(at_stage["weights"], found[0]["weights"], strict=True):
                assert values == pytest.approx(wanted, abs=1e-5)


def refused(_: Topology) -> list[str]:
    group = runtime.init_distributed()
    engine = start(1)
    said = []
    for act in (
        lambda: engine.module.load_state_dict(other(), assign=True),
        lambda: setattr(engine.module.first.weight, "data", torch.ones(5, 4)),
    ):
        with pytest.raises(BadInput) as caught:
            act()
        said.append(str(caught.value))
    train(engine)
    shutdown(group)
    return said


def test_what_cannot_take_effect_is_refused(ranks: Ranks) -> None:
    for assigning, shape in ranks(refused, 2, timeout_seconds=120):
        assert "Leave assign=True out" in assigning
        assert "[5, 3]" in shape
        assert "[5, 4]" in shape
