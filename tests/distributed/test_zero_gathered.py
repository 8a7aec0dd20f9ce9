"""GatheredParameters, safe_get_full_* and ds_* answer as DeepSpeed's do, with a plain model's numbers."""

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
from runtime.train.parallel import whole as names
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
WIDTH, ACCUMULATION = 3, 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, 5), nn.Linear(5, WIDTH)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.last(torch.tanh(self.first(x))) * self.scale).square().mean()


def batch(number: int) -> torch.Tensor:
    return torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(number))


def start(stage: int, **changes: Any) -> Engine:
    torch.manual_seed(0)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": ACCUMULATION,
        "gradient_clipping": 0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.05, "eps": 1e-2, "weight_decay": 0.1}},
        **changes,
    }
    return runtime.initialize(model=Net(), config=config, blocks=[nn.Linear])[0]


class Plain:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Net()
        parameters = self.model.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=0.05, eps=1e-2, weight_decay=0.1)

    def backward(self, number: int) -> None:
        (self.model(batch(number)) / ACCUMULATION).backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def close(found: torch.Tensor | None, wanted: torch.Tensor) -> bool:
    return type(found) is torch.Tensor and torch.allclose(found, wanted, atol=1e-5)


def micro_step(engine: Engine, number: int) -> None:
    topology = engine.group.topology
    engine.backward(engine(batch(number).chunk(topology.world_size)[topology.rank]))


def fragments(stage: int) -> list[str]:
    engine, plain, wrong = start(stage), Plain(), []
    for number in range(ACCUMULATION):
        micro_step(engine, number)
        plain.backward(number)
        if number < ACCUMULATION - 1:
            engine.step()
    ours = list(zip(engine.module.named_parameters(), plain.model.parameters(), strict=True))
    for (name, p), q in ours:
        assert q.grad is not None
        wrong += [f"gradient of {name}"] * (not close(names.safe_get_full_grad(p), q.grad))
        names.safe_set_full_grad(p, q.grad * 2)
        q.grad *= 2
    engine.step()
    plain.step()
    for (name, p), q in ours:
        state = plain.optimizer.state[q]
        wrong += [f"value of {name}"] * (not close(names.safe_get_full_fp32_param(p), q.detach()))
        for kind in ("exp_avg", "exp_avg_sq"):
            if not close(names.safe_get_full_optimizer_state(p, kind), state[kind]):
                wrong.append(f"{kind} of {name}")
        names.safe_set_full_optimizer_state(p, state["exp_avg"] * 3, "exp_avg")
        state["exp_avg"].mul_(3)
        names.safe_set_full_fp32_param(p, q.detach() + 1)
        q.data.add_(1)
    for number in range(ACCUMULATION):
        micro_step(engine, 10 + number)
        engine.step()
        plain.backward(10 + number)
    plain.step()
    for (name, p), q in ours:
        wrong += [f"{name} after what was set"] * (not close(names.safe_get_full_fp32_param(p), q.detach()))
        local = names.safe_get_local_fp32_param(p)
        wrong += ["its part"] * (local is None or local.numel() > q.numel())
    return wrong


def gathering(stage: int, topology: Topology) -> list[str]:
    engine, plain, wrong = start(stage), Net(), []
    module = engine.module
    plain.load_state_dict({n: names.safe_get_full_fp32_param(p) for n, p in module.named_parameters()})  # type: ignore[misc]
    parameters = list(module.parameters())
    engine(batch(3))  # leaves whole ones behind
    with names.GatheredParameters(parameters, modifier_rank=0):
        pairs = list(zip(parameters, plain.parameters(), strict=True))
        wrong += ["what is read"] * (not all(torch.equal(p.detach() + 0, q) for p, q in pairs))
        wrong += ["a number"] * (parameters[1].norm().item() != pytest.approx(pairs[1][1].norm().item()))
        if not torch.equal(module.first.weight, plain.first.weight) or module.scale.ndim:
            wrong.append("of the module")
        wrong += ["a copy"] * (type(copy.deepcopy(module).first.weight) is not nn.Parameter)
        if stage == 3:
            wrong += ["its status"] * (parameters[1].ds_status is not names.ZeroParamStatus.AVAILABLE)  # type: ignore[attr-defined]
        with torch.no_grad():
            engine(batch(0))  # computes with what was there before
        if topology.is_first:
            for p in parameters:
                p.data.mul_(2)
            nn.init.ones_(module.last.bias)
    with torch.no_grad():
        for q in plain.parameters():
            q.mul_(2)
        plain.last.bias.fill_(1)
    for (name, p), q in zip(module.named_parameters(), plain.parameters(), strict=True):
        wrong += [f"{name} of rank 0"] * (not close(names.safe_get_full_fp32_param(p), q.detach()))
    engine.eval()
    with torch.no_grad():
        if not torch.allclose(engine(batch(5)), plain(batch(5)), atol=1e-5):
            wrong.append("a forward afterwards")
    engine.train()
    with names.GatheredParameters(module.scale):
        module.scale.data.fill_(9.0)
    wrong += ["without modifier_rank"] * ((module.scale.item() == 9.0) != (stage < 3))
    with names.GatheredParameters(parameters, enabled=False):
        wrong += ["though it is off"] * (
            topology.world_size > 1 and stage > 0 and "_apart" in parameters[1].__dict__
        )
    return wrong


def asked(stage: int) -> list[str]:
    weight: Any = start(stage).module.first.weight
    if stage < 3:
        return ["ds_id below stage 3"] * hasattr(weight, "ds_id")
    results = [
        (isinstance(weight.ds_id, int), "ds_id"),
        (weight.ds_shape == (5, WIDTH), "ds_shape"),
        (weight.ds_numel == 5 * WIDTH, "ds_numel"),
        (weight.ds_tensor.numel() <= 5 * WIDTH, "ds_tensor"),
        (weight.ds_status is names.ZeroParamStatus.NOT_AVAILABLE, "ds_status"),
    ]
    return [what for is_right, what in results if not is_right]


def gathered(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    for stage in range(4):
        for found in (fragments(stage), gathering(stage, topology), asked(stage)):
            wrong += [f"stage {stage}: {what}" for what in found]
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_whole_values_are_those_of_a_plain_model(ranks: Ranks, world_size: int) -> None:
    assert ranks(gathered, world_size, timeout_seconds=90) == [[]] * world_size
