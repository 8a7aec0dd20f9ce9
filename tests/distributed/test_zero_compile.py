"""torch.compile by block: equal losses at every stage, one compilation for equal blocks, clear refusals."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, Model, Samples, config_for, plain_loop

pytestmark = pytest.mark.distributed
STEPS = 5


def train(topology: Topology, configs: list[Mapping[str, Any]], late: bool) -> list[tuple[list[float], int]]:
    """Losses for each configuration, and how many graphs were compiled."""
    from torch._dynamo.utils import counters

    group = runtime.init_distributed()
    found = []
    for config in configs:
        torch._dynamo.reset()
        counters.clear()
        torch.manual_seed(SEED)
        engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
        if late:
            engine.compile(backend="aot_eager")
            engine.compile()
        losses = [engine.train_batch().item() for _ in range(STEPS)]
        found.append((losses, counters["stats"]["unique_graphs"]))
    shutdown(group)
    return found


def compiled(stage: int, backend: str, **changes: Any) -> dict[str, Any]:
    return config_for(stage, compile={"enabled": True, "backend": backend}, **changes)


def check(found: list[tuple[list[float], int]], *, graphs: int) -> None:
    for losses, compiled_graphs in found:
        assert losses == pytest.approx(plain_loop().losses[:STEPS], rel=1e-5)
        assert 1 <= compiled_graphs <= graphs


WHOLE_AND_SHARDED = [
    compiled(2, "aot_eager"),
    compiled(3, "aot_eager", activation_checkpointing={"cpu_checkpointing": True}),
]
THE_OTHERS = [
    compiled(0, "aot_eager"),
    compiled(3, "aot_eager"),
    compiled(3, "aot_eager", activation_checkpointing={}),
]


@pytest.mark.parametrize(
    "configs", [WHOLE_AND_SHARDED, pytest.param(THE_OTHERS, marks=pytest.mark.long)], ids=["some", "others"]
)
def test_losses_are_those_of_the_plain_loop_and_equal_blocks_share_their_graph(
    ranks: Ranks, configs: list[Mapping[str, Any]]
) -> None:
    for found in ranks(train, 2, configs, False, timeout_seconds=300):
        check(found, graphs=2)


def test_an_engine_compiles_its_blocks_later(ranks: Ranks) -> None:
    configs = [config_for(3), config_for(3, activation_checkpointing={})]

    for found in ranks(train, 2, configs, True, timeout_seconds=300):
        check(found, graphs=2)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++ for a CPU")
def test_inductor_trains_at_stage_three(ranks: Ranks) -> None:
    for found in ranks(train, 2, [compiled(3, "inductor")], False, timeout_seconds=300):
        check(found, graphs=2)


def refuse(topology: Topology, changes: Mapping[str, Any], hidden: bool) -> str:
    from torch._inductor import config as inductor

    group = runtime.init_distributed()
    if hidden:
        inductor.cpp.cxx = (None, "no-such-compiler")  # type: ignore[assignment]
    try:
        runtime.initialize(model=Model(), config=config_for(3, compile=changes))
        runtime.initialize(model=nn.Linear(2, 2), config=config_for(3, compile=changes))
    except BadInput as e:
        return e.found
    finally:
        shutdown(group)
    return ""


@pytest.mark.parametrize(
    ("changes", "hidden", "said"),
    [
        ({"enabled": True}, True, "no C++ compiler (no-such-compiler) on this machine's PATH"),
        ({"enabled": True, "backend": "tvmm"}, False, "this torch knows "),
        ({"enabled": True, "backend": "eager"}, False, "no block was found in it"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    ranks: Ranks, changes: Mapping[str, Any], hidden: bool, said: str
) -> None:
    [found] = ranks(refuse, 1, changes, hidden)

    assert found.startswith(said)
