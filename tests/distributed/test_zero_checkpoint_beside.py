"""Saves beside the training: what is written is the step's state, and no error is lost."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import runtime
from runtime.comm.group import shutdown
from runtime.errors import CheckpointFailed
from runtime.topology import Topology
from runtime.train.checkpoint.save import write
from runtime.train.checkpoint.snapshot import Staging, take
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, Model, Samples, config_for, plain_loop

pytestmark = pytest.mark.distributed


def new_engine(stage: int) -> Engine:
    torch.manual_seed(SEED)
    config = config_for(stage, checkpoint={"async_save": True, "keep_last": 2})
    return runtime.initialize(model=Model(), training_data=Samples(), config=config)[0]


def losses_from(folder: str, tag: str | None = None) -> tuple[str | None, list[float]]:
    engine = new_engine(1)
    loaded, _ = engine.load_checkpoint(folder, tag)
    return loaded, [engine.train_batch().item() for _ in range(2)]


def save_at_every_step(topology: Topology, folder: str) -> list[float]:
    group = runtime.init_distributed(timeout_seconds=60)
    engine = new_engine(3)
    losses = []
    for _ in range(5):
        losses.append(engine.train_batch().item())
        engine.save_checkpoint(folder)
    losses.append(engine.train_batch().item())  # the last save is under way
    engine.wait_for_checkpoint()
    shutdown(group)
    return losses


def continue_from(topology: Topology, folder: str, tags: list[str]) -> list[tuple[str | None, list[float]]]:
    group = runtime.init_distributed(timeout_seconds=60)
    outcomes = [losses_from(folder, tag) for tag in tags]
    shutdown(group)
    return outcomes


def test_training_goes_on_while_a_save_is_written_and_every_checkpoint_is_its_steps(
    ranks: Ranks, tmp_path: Path
) -> None:
    plain = plain_loop().losses

    losses = ranks(save_at_every_step, 2, str(tmp_path), timeout_seconds=300)[0]
    kept = sorted(path.parent.name for path in tmp_path.glob("*/manifest.json"))
    outcomes = ranks(continue_from, 2, str(tmp_path), kept, timeout_seconds=300)[0]

    assert losses == pytest.approx(plain[:6], rel=1e-5)
    assert kept == ["global_step4", "global_step5"]
    assert (tmp_path / "latest").read_text() == "global_step5"
    for step, (loaded, after) in zip((4, 5), outcomes, strict=True):
        assert loaded == str(tmp_path / f"global_step{step}")
        assert after == pytest.approx(plain[step : step + 2], rel=1e-5)


def write_after_two_more_steps(topology: Topology, folder: str) -> tuple[str | None, list[float]]:
    group = runtime.init_distributed(timeout_seconds=60)
    engine = new_engine(3)
    for _ in range(3):
        engine.train_batch()
    snapshot = take(engine, "early", {}, frozen=True, staging=Staging())
    for _ in range(2):
        engine.train_batch()
    write(engine, Path(folder), snapshot, write_latest=True, peers=dist.new_group(backend="gloo"))
    outcome = losses_from(folder)
    shutdown(group)
    return outcome


def test_steps_after_the_copy_do_not_reach_the_checkpoint(ranks: Ranks, tmp_path: Path) -> None:
    loaded, losses = ranks(write_after_two_more_steps, 2, str(tmp_path), timeout_seconds=300)[0]

    assert loaded == str(tmp_path / "early")
    assert losses == pytest.approx(plain_loop().losses[3:5], rel=1e-5)


def fail_beside_the_training(topology: Topology, folder: str) -> tuple[str, str | None]:
    group = runtime.init_distributed(timeout_seconds=60)
    engine = new_engine(3)
    engine.train_batch()
    engine.save_checkpoint(folder)
    engine.wait_for_checkpoint()
    engine.train_batch()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if topology.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    engine.save_checkpoint(folder)  # copies, and returns
    engine.train_batch()
    error = ""
    try:
        engine.save_checkpoint(folder)
    except CheckpointFailed as e:
        error = str(e)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    engine.wait_for_checkpoint()
    loaded, _ = engine.load_checkpoint(folder)
    shutdown(group)
    return error, loaded


def test_an_error_beside_the_training_is_raised_on_all_ranks_by_the_next_save(
    ranks: Ranks, tmp_path: Path
) -> None:
    for error, loaded in ranks(fail_beside_the_training, 2, str(tmp_path), timeout_seconds=300):
        assert "rank 1" in error
        assert "File too large" in error
        assert loaded == str(tmp_path / "global_step1")
    assert not list(tmp_path.glob(".*.partial"))
