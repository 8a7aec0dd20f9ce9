"""What scripts ask of DeepSpeed's engine and call of it, with a plain model's numbers."""

from __future__ import annotations

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
WIDTH = 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, 5), nn.Linear(5, WIDTH)
        self.again = self.last
        self.frozen = nn.Parameter(torch.ones(WIDTH), requires_grad=False)
        self.register_buffer("shift", torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.last(torch.tanh(self.first(x))) * self.frozen + self.shift).square().mean()


def batch(number: int) -> torch.Tensor:
    return torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(number))


def start(stage: int, accumulation: int = 1, **changes: Any) -> Engine:
    torch.manual_seed(0)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}},
        **changes,
    }
    return runtime.initialize(model=Net(), config=config, blocks=[nn.Linear])[0]


class Plain:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def step(self, *numbers: int, weight: float = 1.0) -> None:
        for number in numbers:
            (self.model(batch(number)) * weight / len(numbers)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def ours(engine: Engine, number: int) -> torch.Tensor:
    topology = engine.group.topology
    return batch(number).chunk(topology.world_size)[topology.rank]


def differ(engine: Engine, plain: Plain) -> bool:
    for unit in engine.module.modules():
        if hasattr(unit, "reshard"):
            unit.reshard()
    pairs = zip(engine.module.parameters(), plain.model.parameters(), strict=True)
    return not all(torch.allclose(p.full_tensor(), q, atol=1e-5) for p, q in pairs)  # type: ignore[operator]


def sizes(stage: int) -> list[str]:
    """Other numbers of micro-steps in the middle of a training, learning rates, samples, answers."""
    engine, plain = start(stage), Plain()
    engine.backward(engine(ours(engine, 0)))
    engine.step()
    plain.step(0)
    results = [(engine.was_step_applied(), "a step is applied"), (engine.get_mom() == [0.9], "momentum")]
    ranks = engine.world_size
    engine.set_train_batch_size(2 * ranks)
    for number in (1, 2):
        engine.backward(engine(ours(engine, number)))
        engine.step()
        results.append((engine.was_step_applied() == (number == 2), f"applied after {number}"))
    plain.step(1, 2)
    engine.set_lr(0.05)
    plain.optimizer.param_groups[0]["lr"] = 0.05
    engine.set_train_batch_size(3 * ranks)
    for number in (3, 4, 5):
        loss = engine(ours(engine, number))
        engine.backward(loss / 3, scale_wrt_gas=False)
        engine.step()
    plain.step(3, 4, 5)
    engine.backward(engine(ours(engine, 6)))
    engine.step()
    with pytest.raises(BadInput) as caught:
        engine.set_train_batch_size(ranks)
    results += [
        ("under" not in str(caught.value) and "1 micro-steps" in str(caught.value), "in a step"),
        (not differ(engine, plain), "weights"),
        (engine.global_samples == (1 + 2 + 3) * ranks, f"samples {engine.global_samples}"),
        (engine.get_lr() == [0.05], "a learning rate"),
        ((engine.train_batch_size(), engine.gradient_accumulation_steps()) == (3 * ranks, 3), "sizes"),
        ((engine.fp16_enabled(), engine.bfloat16_enabled()) == (False, False), "types"),
        (engine.gradient_clipping() == 0 and engine.loss_scale() == 0, "clipping and scale"),
        ((engine.optimizer.cur_scale, engine.optimizer.overflow) == (1.0, False), "the optimizer"),  # type: ignore[union-attr]
        (engine.zero_optimization() == (stage > 0), "zero"),
        (engine.get_batch_info() == (3 * ranks, 1, 3) and not engine.is_compiled, "batches"),
        (engine.tput_timer.avg_samples_per_sec() > 0, "samples in a second"),
        (engine.tput_timer.global_step_count == 3, "steps that were timed"),
        (torch.distributed.get_world_size(engine.data_parallel_group) == ranks, "its group"),
        (engine.optimizer_name() == "SGD" and engine.dp_world_size == ranks, "names"),
    ]
    return [what for is_right, what in results if not is_right]


def twice(stage: int) -> list[str]:
    """Two backwards of one graph."""
    engine, plain = start(stage), Plain()
    for number in range(2):
        loss = engine(ours(engine, number))
        engine.backward(loss, retain_graph=True)
        engine.backward(loss * 2)
        engine.step()
        plain.step(number, weight=3.0)
    wrong = ["after retain_graph"] * differ(engine, plain)
    engine.set_train_micro_batch_size(4)
    wrong += ["samples"] * (engine.train_batch_size() != 4 * engine.world_size)
    engine.load_module_state_dict(Net().state_dict())
    plain.model.load_state_dict(
        {n: p.full_tensor() for n, p in engine.module.named_parameters()}, strict=False
    )
    return wrong + ["a loaded state dict"] * differ(engine, plain)


def evaluated(stage: int) -> list[str]:
    engine, plain, wrong = start(stage, 2), Plain(), []
    loss = engine.eval_batch(iter([ours(engine, 0), ours(engine, 1)]))
    with torch.no_grad():
        wanted = (plain.model(batch(0)) + plain.model(batch(1))) / 2
    wrong += ["a loss"] * (loss.item() != pytest.approx(wanted.item(), rel=1e-5))
    wrong += ["its mode"] * (not engine.training)
    with pytest.raises(BadInput):
        engine.eval_batch(iter([]), return_logits=True)
    return wrong


def written(stage: int, topology: Topology, folder: str) -> list[str]:
    engine, wrong = start(stage, bf16={"enabled": True}), []
    target = Path(folder) / f"{stage}"
    if not engine.save_16bit_model(target, exclude_frozen_parameters=True):
        wrong.append("nothing was saved")
    if topology.is_first:
        found = torch.load(target / "pytorch_model.bin", weights_only=True)
        torch.manual_seed(0)
        wanted = Net().state_dict()
        del wanted["frozen"]
        if list(found) != list(wanted) and set(found) != set(wanted):
            wrong.append(f"names {list(found)}")
        if not all(torch.equal(found[n], wanted[n].bfloat16()) for n in wanted if n != "shift"):
            wrong.append("weights")
        if found["again.weight"].data_ptr() != found["last.weight"].data_ptr():
            wrong.append("tied ones")
    if stage < 3 or topology.world_size == 1:
        state = engine.module_state_dict(exclude_frozen_parameters=True)
        wrong += ["module_state_dict"] * ("frozen" in state or "last.weight" not in state)
    else:
        with pytest.raises(BadInput):
            engine.module_state_dict()
    return wrong


def left(stage: int) -> list[str]:
    """States leave the device and come back; an engine that was destroyed trains no more."""
    engine, plain, wrong = start(stage), Plain(), []
    for number in range(2):
        engine.backward(engine(ours(engine, number)))
        if number:
            with pytest.raises(BadInput) as caught:
                engine.step()
            wrong += [str(caught.value)] * ("reload_states" not in str(caught.value))
            engine.reload_states()
        engine.step()
        plain.step(number)
        engine.offload_states()
    engine.reload_states()
    wrong += ["after states were away"] * differ(engine, plain)
    with pytest.raises(BadInput):
        engine.offload_states(include=["hp_params"])
    engine.destroy()
    with pytest.raises(BadInput) as caught:
        engine.step()
    wrong += [str(caught.value)] * ("destroyed" not in str(caught.value))
    return wrong + ["weights of the destroyed"] * differ(engine, plain)


def surface(topology: Topology, folder: str) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    for stage in range(4):
        for found in (
            sizes(stage),
            twice(stage),
            evaluated(stage),
            written(stage, topology, folder),
            left(stage),
        ):
            wrong += [f"stage {stage}: {what}" for what in found]
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_what_scripts_ask_and_call_of_an_engine(ranks: Ranks, world_size: int, tmp_path: Path) -> None:
    assert ranks(surface, world_size, str(tmp_path), timeout_seconds=90) == [[]] * world_size
