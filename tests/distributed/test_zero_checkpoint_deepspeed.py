"""A run that DeepSpeed 0.19.8 began goes on here with the losses that it had there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from runtime.train.checkpoint.deepspeed.convert import import_checkpoint
from runtime.train.engine import Engine
from tests.cases.deepspeed.small import RANKS, SEED, STEPS, VARIANTS, Small, batch, config_for, groups
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed
CASES = Path(__file__).parents[1] / "cases" / "deepspeed"


def new_engine(stage: int, changes: dict[str, Any]) -> Engine:
    torch.manual_seed(1 + SEED)  # other weights than those that are loaded
    model = Small()
    return runtime.initialize(
        model=model, model_parameters=groups(model), config=config_for(stage, **changes)
    )[0]


def step(engine: Engine, number: int, topology: Topology) -> float:
    """The mean loss of the ranks, each with its share of the two batches."""
    share = RANKS // topology.world_size
    tokens = torch.cat([batch(number, topology.rank * share + one) for one in range(share)])
    loss = engine(tokens)
    engine.backward(loss)
    engine.step()
    mean = loss.detach().float()
    dist.all_reduce(mean)
    return float(mean) / topology.world_size


def go_on(
    topology: Topology, folder: str, stages: dict[str, int]
) -> dict[str, tuple[list[float], float, Any]]:
    """Losses after each checkpoint, the loss scale, and the script's state."""
    group = runtime.init_distributed(timeout_seconds=60)
    found = {}
    for name, stage in stages.items():
        engine = new_engine(stage, VARIANTS[name][1])
        _, client = engine.load_checkpoint(f"{folder}/{name}")
        scale = engine.scaling.value
        losses = [step(engine, number, topology) for number in range(STEPS, 2 * STEPS)]
        engine.save_checkpoint(f"{folder}/{name}")
        found[name] = (losses, scale, client)
    shutdown(group)
    return found


# The stage at which each goes on: its own, and others.
@pytest.mark.parametrize(("world_size", "shift"), [(2, 0), (1, 1)])
def test_a_run_of_deepspeed_goes_on_at_its_stage_and_size_and_at_others(
    ranks: Ranks, tmp_path: Path, world_size: int, shift: int
) -> None:
    for name in VARIANTS:
        import_checkpoint(CASES / name, tmp_path / name)
    stages = {name: (stage + shift - 1) % 3 + 1 for name, (stage, _) in VARIANTS.items()}

    outcomes = ranks(go_on, world_size, str(tmp_path), stages, timeout_seconds=120)[0]

    for name, (losses, scale, client) in outcomes.items():
        recorded = json.loads((CASES / name / "recorded.json").read_text())
        # Half precision rounds where a matrix is split, which differs between the two.
        tolerance = 2e-2 if "_" in name else 1e-5
        assert losses == pytest.approx(recorded["after"], rel=tolerance), name
        assert (scale, client) == (recorded["loss_scale"], {"seen": 12})
        assert (tmp_path / name / "latest").read_text() == "global_step6"


def load_it_as_it_is(topology: Topology, folder: str) -> str:
    group = runtime.init_distributed(timeout_seconds=60)
    try:
        new_engine(3, {}).load_checkpoint(folder)
    except BadInput as e:
        return f"{e.found}. {e.fix}"
    finally:
        shutdown(group)
    return ""


def test_a_folder_of_deepspeed_is_not_taken_for_an_empty_one(ranks: Ranks) -> None:
    folder = str(CASES / "zero2")

    [said] = ranks(load_it_as_it_is, 1, folder, timeout_seconds=60)

    command = f"python -m runtime checkpoint import {folder} FOLDER"
    assert said == f"DeepSpeed saved it. Run `{command}`, and load from that folder."
