"""ZeRO stages 0 to 3 at 1, 2 and 4 ranks against a plain loop in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import STEPS, History, config_for, engine_loops, plain_loop

pytestmark = pytest.mark.distributed
PEER = Path(__file__).parents[1] / "cases" / "parity" / "deepspeed_0_19_8.json"


@pytest.fixture(scope="module")
def plain() -> History:
    return plain_loop()


@pytest.fixture(scope="module")
def peer() -> dict[tuple[int, bool], list[float]]:
    """Losses that DeepSpeed 0.19.8 had on the same configurations, by stage and bf16."""
    runs = json.loads(PEER.read_text())["runs"]
    return {(run["stage"], run["bf16"]): run["losses"] for run in runs}


def run(ranks: Ranks, world_size: int, configs: list[dict[str, Any]]) -> list[History]:
    by_rank = ranks(engine_loops, world_size, configs, timeout_seconds=300)
    assert all(histories == by_rank[0] for histories in by_rank), "ranks disagree"
    return by_rank[0]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_stage_in_fp32_equals_the_plain_loop_and_the_peer(
    ranks: Ranks, plain: History, peer: dict[tuple[int, bool], list[float]], world_size: int
) -> None:
    histories = run(ranks, world_size, [config_for(stage) for stage in range(4)])

    for stage, history in enumerate(histories):
        # Sums over ranks and micro-steps run in another order: a few units in the last place, each step.
        assert history.losses == pytest.approx(plain.losses, rel=1e-5), f"stage {stage}"
        assert history.norms == pytest.approx(plain.norms, rel=1e-4), f"stage {stage}"
        assert history.rates == pytest.approx(plain.rates, rel=1e-12), f"stage {stage}"
        if stage > 0:
            assert history.losses == pytest.approx(peer[stage, False], rel=1e-5), f"stage {stage}"
        assert history.losses[-1] < 0.8 * history.losses[0]
        assert len(history.losses) == STEPS


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_stage_in_bf16_stays_within_its_precision(
    ranks: Ranks, plain: History, peer: dict[tuple[int, bool], list[float]], world_size: int
) -> None:
    histories = run(ranks, world_size, [config_for(stage, bf16={"enabled": True}) for stage in range(4)])

    for stage, history in enumerate(histories):
        assert history.losses == pytest.approx(plain.losses, rel=2e-2), f"stage {stage}"
        assert history.losses == pytest.approx(peer[max(stage, 1), True], rel=2e-2), f"stage {stage}"


OPTIMIZERS = [
    {"type": "Adam", "params": {"lr": 0.01, "adam_w_mode": False, "weight_decay": 0.1}},
    {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}},
    {"type": "Adagrad", "params": {"lr": 0.01}},
]


def test_every_optimizer_of_the_configuration_takes_the_same_steps_on_shards(ranks: Ranks) -> None:
    whole = run(ranks, 1, [config_for(0, optimizer=optimizer) for optimizer in OPTIMIZERS])
    sharded = run(ranks, 2, [config_for(3, optimizer=optimizer) for optimizer in OPTIMIZERS])

    for optimizer, one, two in zip(OPTIMIZERS, whole, sharded, strict=True):
        assert two.losses == pytest.approx(one.losses, rel=1e-5), optimizer["type"]
        assert two.losses[-1] < one.losses[0], optimizer["type"]
