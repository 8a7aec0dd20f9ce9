"""A copy of a sharded model is a plain one; parameters that come into a model later are named."""

from __future__ import annotations

import copy
from collections.abc import Iterator
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
from tests.distributed.test_zero_parts import VOCABULARY, WIDTH, Block, Net, plain_training, start, tokens

pytestmark = pytest.mark.distributed


class Grown(Net):
    """As transformers' models do it: a new embedding takes the old one's place."""

    def resize_token_embeddings(self, count: int) -> None:
        self.embed = nn.Embedding(count, WIDTH)


def grown(_: Topology) -> list[str]:
    group = runtime.init_distributed()
    said = []
    for stage in (0, 2, 3):
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "optimizer": {"type": "SGD"},
            "zero_optimization": {"stage": stage},
        }
        engine, *_ = runtime.initialize(model=Grown(), config=config)
        with pytest.raises(BadInput) as caught:
            engine.resize_token_embeddings(VOCABULARY + 1)
        said.append(str(caught.value))
        engine.module.value = nn.Linear(WIDTH, 1)
        engine.backward(engine.module.score(tokens(0)).sum())
        with pytest.raises(BadInput) as caught:
            engine.step()
        said.append(str(caught.value))
    shutdown(group)
    return said


def test_parameters_that_come_later_are_named(ranks: Ranks) -> None:
    for said in ranks(grown, 2):
        assert all("resize_token_embeddings" in one for one in said[::2])
        assert all("value.weight" in one and "before runtime.initialize" in one for one in said[1::2])


def copies(topology: Topology) -> list[str]:
    group = runtime.init_distributed()
    plain, wrong = plain_training(), []
    for stage in range(4):
        engine = start(stage)
        seen: list[int] = []
        engine.module.attention.register_forward_hook(Counting(seen))
        engine.load_state_dict(plain.state_dict())
        with torch.no_grad():
            engine(tokens(0))
        try:
            copied = copy.deepcopy(engine.module)
        except BadInput as error:
            if stage < 3 or topology.world_size == 1 or "Copy it before" not in str(error):
                wrong.append(f"stage {stage}: {error}")
            continue
        wrong += [f"stage {stage}: {what}" for what in unlike(copied, plain, engine)]
        before = engine.module.value.weight.full_tensor().detach().clone()
        copied(tokens(1)).backward()
        torch.optim.SGD(copied.parameters(), lr=1.0).step()
        if not torch.equal(engine.module.value.weight.full_tensor(), before):
            wrong.append(f"stage {stage}: the model changes with its copy")
        engine.backward(engine(tokens(0)))
        engine.step()
    shutdown(group)
    return wrong


class Counting:
    """A script's own hook, which a copy keeps."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    def __call__(self, *_: object) -> None:
        self.seen.append(1)


def same(ours: Iterator[nn.Parameter], theirs: Iterator[nn.Parameter]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def unlike(copied: Any, plain: Net, engine: Engine) -> list[str]:
    results = [
        (type(copied) is Net, "its type"),
        (all(type(p) is nn.Parameter for p in copied.parameters()), "its parameters"),
        (
            all(torch.equal(p, q) for p, q in zip(copied.parameters(), plain.parameters(), strict=True)),
            "values",
        ),
        (torch.allclose(copied.project(tokens(3)), plain.project(tokens(3)), atol=1e-6), "a method"),
        (len(copied.attention._forward_hooks) == 1, "hooks"),
        (list(copied.state_dict()) == list(plain.state_dict()), "its state dict"),
        (type(copy.deepcopy(engine.module.layers[0])) is Block, "a copy of a block"),
        (copy.deepcopy(copied).training, "a copy of the copy"),
    ]
    return [what for is_right, what in results if not is_right]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_copy_is_a_plain_model(ranks: Ranks, world_size: int) -> None:
    assert ranks(copies, world_size) == [[]] * world_size
