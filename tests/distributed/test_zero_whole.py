"""Whole weights are there when a script asks: on one rank, at any time, in stages 0 to 2; stage 3 refuses."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from runtime.train.engine import Engine
from runtime.train.parallel.fsdp import drop_gathered
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
SIZE = 7
CPU = {"device": "cpu"}


class Tied(nn.Module):
    """A tied weight in the root, a block, a frozen layer, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(SIZE, 3)
        self.block = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(3, SIZE, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.frozen(self.block(self.embed(x)))).float().square().mean()


def start(stage: int, **changes: Any) -> Engine:
    torch.manual_seed(0)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": stage, **changes.pop("zero", {})},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.1}},
        **changes,
    }
    return runtime.initialize(model=Tied(), config=config, blocks=[nn.Sequential])[0]


def moments(engine: Engine, folder: str) -> Iterator[str]:
    """A training, stopped wherever somebody may ask."""
    x = torch.arange(SIZE)
    yield "after initialize"
    for step in range(2):
        for micro in range(2):
            loss = engine(x)
            yield f"step {step}, after forward {micro}"
            engine.backward(loss)
            yield f"step {step}, after backward {micro}"
            engine.step()
            yield f"step {step}, after step {micro}"
        with torch.no_grad():
            engine.eval()(x)
        yield f"step {step}, in evaluation"
        engine.train()
        engine.save_checkpoint(folder)
        yield f"step {step}, after a save"
    engine.load_checkpoint(folder)
    yield "after a load"


def expected(engine: Engine) -> dict[str, torch.Tensor]:
    """What the shards are, by a collective, in the type in which they compute."""
    dtype = torch.bfloat16 if engine.config.bf16.enabled else torch.float32
    drop_gathered(engine.module)
    named = engine.module.named_parameters(remove_duplicate=False)
    return {name: p.detach().full_tensor().to(dtype) for name, p in named}


def wrong_in(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    """Names that are missing, not plain, not whole, or of other values; and a file of other size."""
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(0)
    read = torch.load(content, weights_only=True)
    wrong = [
        name
        for name, value in wanted.items()
        if type(state[name]) is not torch.Tensor or not torch.equal(read[name], value)
    ]
    size = sum(v.nbytes for n, v in state.items() if n != "head.weight")
    return wrong + (["the file's size"] if len(content.getvalue()) > size + 8000 else [])


def ask(engine: Engine) -> list[tuple[dict[str, torch.Tensor], str]]:
    """Every door, and the prefix that its names lack."""
    module = engine.module
    parameters = [name for name, _ in module.named_parameters()]
    content = io.BytesIO()
    torch.save(list(module.parameters()), content)
    content.seek(0)
    pickled = [p.detach() for p in torch.load(content, weights_only=False)]
    return [
        (module.state_dict(), ""),
        (engine.state_dict(), ""),
        (module.block.state_dict(), "block."),
        (module.head.state_dict(prefix="head."), ""),
        (copy.deepcopy(module.state_dict()), ""),
        ({n: v.detach() for n, v in module.state_dict(keep_vars=True).items()}, ""),
        (dict(zip(parameters, pickled, strict=True)), ""),
    ]


def rank_0_asks(topology: Topology, folder: str) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    for index, (stage, changes) in enumerate(SETTINGS):
        engine = start(stage, **changes)
        for moment in moments(engine, f"{folder}/{index}"):
            asked = ask(engine) if topology.is_first else []
            dist.barrier()  # nobody else is there while it asks
            wanted = expected(engine)
            for door, (state, prefix) in enumerate(asked):
                here = {n.removeprefix(prefix): v for n, v in wanted.items() if n.startswith(prefix)}
                here = {n: v for n, v in here.items() if n in state} if door in (3, 6) else here
                wrong += [f"{stage} {changes}, {moment}, door {door}: {n}" for n in wrong_in(state, here)]
            if topology.is_first:
                whole = asked[0][0]
                if whole["head.weight"] is not whole["embed.weight"] or "seen" not in whole:
                    wrong.append(f"{stage} {changes}, {moment}: not tied")
    shutdown(group)
    return wrong


SETTINGS: list[tuple[int, dict[str, Any]]] = [
    *((stage, {}) for stage in range(3)),
    *((stage, {"bf16": {"enabled": True}}) for stage in range(3)),
    (1, {"zero": {"offload_optimizer": CPU}}),
    (2, {"zero": {"offload_optimizer": CPU}, "bf16": {"enabled": True}}),
]


@pytest.mark.parametrize("world_size", [1, 2])
def test_rank_0_alone_gets_whole_weights_at_any_time(ranks: Ranks, world_size: int, tmp_path: Path) -> None:
    found = ranks(rank_0_asks, world_size, str(tmp_path), timeout_seconds=400)

    assert found[0] == []


def clamp(engine: Engine) -> None:
    for parameter in engine.module.parameters():
        parameter.data.clamp_(-0.05, 0.05)


def average(engine: Engine) -> None:
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter.copy_(parameter * 0.5)


def of_one_shard(engine: Engine) -> None:
    """Changes what another rank than the first holds, and calls it everywhere, as a clamp may."""
    last = [p for p in engine.module.parameters() if p.requires_grad][-1]
    last.data.mul_(1.0 if engine.group.topology.is_first else 3.0)


def changed_in_place(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    wrong = []
    changes: list[Callable[[Engine], None]] = [clamp, average, of_one_shard]
    for stage in range(4):
        engine = start(stage, gradient_accumulation_steps=1)
        for change in changes:
            engine.backward(engine(torch.arange(SIZE)))
            engine.step()
            change(engine)
            wanted = expected(engine)
            refused = False
            if stage in (1, 2) and topology.world_size > 1 and change is not of_one_shard:
                try:
                    engine.module.state_dict()
                except BadInput as e:
                    refused = "forward" in str(e)
                if not refused:
                    wrong.append(f"stage {stage}: a stale state dict was given out")
            loss = engine(torch.arange(SIZE))
            plain = Tied()
            plain.load_state_dict(wanted | {"seen": torch.ones(2)})
            if not torch.allclose(loss, plain(torch.arange(SIZE)), rtol=1e-5):
                wrong.append(f"stage {stage}, {change.__name__}: the forward does not see it")
            if stage < 3:
                wrong += wrong_in(engine.module.state_dict(), wanted)
    shutdown(group)
    return wrong


@pytest.mark.parametrize("world_size", [1, 2])
def test_weights_that_are_changed_in_place_are_not_lost(ranks: Ranks, world_size: int) -> None:
    assert ranks(changed_in_place, world_size, timeout_seconds=240) == [[]] * world_size


def stage_3(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    engine = start(3)
    said = []
    for act in (
        lambda: engine.module.state_dict(),
        lambda: engine.module.block.state_dict(),
        lambda: torch.save(list(engine.module.parameters()), io.BytesIO()),
    ):
        try:
            act()
            said.append("nothing")
        except BadInput as e:
            said.append(str(e))
    shutdown(group)
    return said


def test_stage_3_says_what_to_call_and_one_rank_has_all(ranks: Ranks) -> None:
    for said in ranks(stage_3, 2, timeout_seconds=120):
        assert all("save_checkpoint" in text and "checkpoint export" in text for text in said), said
    assert ranks(stage_3, 1, timeout_seconds=120) == [["nothing"] * 3]


def saved_after_evaluation(topology: Topology, folder: str) -> list[str]:
    """What a checkpoint lacks that was saved while the module held whole parameters."""
    group = runtime.init_distributed()
    wrong = []
    for stage in range(4):
        engine = start(stage, bf16={"enabled": True}, gradient_accumulation_steps=1)
        x = torch.arange(SIZE)
        engine.backward(engine(x))
        engine.step()
        drop_gathered(engine.module)
        masters = {n: p.full_tensor().clone() for n, p in engine.module.named_parameters()}
        with torch.no_grad():
            engine(x)
        engine.save_checkpoint(f"{folder}/{stage}")
        again = start(stage, bf16={"enabled": True}, gradient_accumulation_steps=1)
        again.load_checkpoint(f"{folder}/{stage}")
        loaded = {n: p.full_tensor() for n, p in again.module.named_parameters()}
        wrong += [f"{stage} {n}" for n in masters if not torch.equal(masters[n], loaded[n])]
        if len(again.optimizer.state) != len(engine.optimizer.state):
            wrong.append(f"{stage}: states of {len(again.optimizer.state)} parameters")
    shutdown(group)
    return wrong


def test_a_checkpoint_saved_after_an_evaluation_is_complete(ranks: Ranks, tmp_path: Path) -> None:
    assert ranks(saved_after_evaluation, 2, str(tmp_path), timeout_seconds=240) == [[]] * 2
