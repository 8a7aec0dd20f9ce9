"""A resumed run equals an uninterrupted one, at any size and stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, History, Model, Samples, config_for, plain_loop

pytestmark = pytest.mark.distributed
BATCH = 12  # 2, 3 and 4 ranks divide it


def part_of_a_run(
    topology: Topology, folder: str, config: Mapping[str, Any], steps: int, client: dict[str, Any]
) -> tuple[list[float], str | None, dict[str, Any]]:
    """Loads what is there, takes steps, saves; returns the losses and what was loaded."""
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
    loaded, state = engine.load_checkpoint(folder)
    losses = [engine.train_batch().item() for _ in range(steps)]
    engine.save_checkpoint(folder, client_state=client)
    shutdown(group)
    return losses, loaded, state


@pytest.fixture(scope="module")
def plain() -> History:
    return plain_loop(BATCH)


def test_a_run_continues_at_other_sizes_and_stages_as_if_uninterrupted(
    ranks: Ranks, plain: History, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    losses: list[float] = []
    for world_size, stage, steps in ((4, 3, 6), (2, 1, 5), (3, 3, 4), (1, 0, 5)):
        config = config_for(stage, train_batch_size=BATCH, gradient_accumulation_steps=1)
        client = {"seen": len(losses) + steps}
        part, loaded, state = ranks(part_of_a_run, world_size, folder, config, steps, client)[0]
        assert loaded == (f"{folder}/global_step{len(losses)}" if losses else None)
        assert state == ({"seen": len(losses)} if losses else {})
        losses += part

    assert losses == pytest.approx(plain.losses, rel=1e-5)
    assert (tmp_path / "latest").read_text() == "global_step20"
    assert json.loads((tmp_path / "global_step6" / "manifest.json").read_text())["world_size"] == 4
