"""A job killed before each change that a save makes on disk, in turn; and two jobs in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import runtime
from runtime.comm.group import shutdown
from runtime.errors import RuntimeFault
from runtime.topology import Topology
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, Model, Samples, config_for, plain_loop

pytestmark = pytest.mark.distributed
WRITING = os.O_WRONLY | os.O_RDWR
KILLED = f"exit status -{int(signal.SIGKILL)}"


def new_engine() -> Engine:
    torch.manual_seed(SEED)
    return runtime.initialize(model=Model(), training_data=Samples(), config=config_for(3))[0]


def change_of(event: str, arguments: Sequence[Any], folder: str) -> str | None:
    """What an audit event (docs.python.org, "Audit events table") is about to change below the folder."""
    path = (
        os.fsdecode(arguments[0]) if arguments and isinstance(arguments[0], str | bytes | os.PathLike) else ""
    )
    if not path.startswith(folder):
        return None
    if event == "open" and not arguments[2] & WRITING:
        return None
    verbs = {
        "open": "write",
        "os.rename": "rename",
        "os.mkdir": "make",
        "os.link": "link",
        "os.remove": "remove",
    }
    name = Path(os.fsdecode(arguments[1])).name if event == "os.rename" else Path(path).name
    return f"{verbs[event]} {name}" if event in verbs else None


def first_checkpoint(topology: Topology, folder: str) -> None:
    group = runtime.init_distributed()
    engine = new_engine()
    for _ in range(3):
        engine.train_batch()
    engine.save_checkpoint(folder)
    shutdown(group)


def save_until_killed(topology: Topology, folder: str, last: int | None) -> list[str]:
    """Saves step 4, and is killed before its change number `last`; returns all changes where None."""
    group = runtime.init_distributed()
    engine = new_engine()
    engine.load_checkpoint(folder)
    engine.train_batch()
    changes: list[str] = []
    saving = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        change = change_of(event, arguments, folder) if saving else None
        if change is not None:
            if len(changes) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            changes.append(change)

    sys.addaudithook(watch)
    engine.save_checkpoint(folder)
    saving = False
    shutdown(group)
    return changes


def continue_all(topology: Topology, folders: list[str]) -> list[tuple[str | None, list[float]]]:
    """Loads from each folder, takes two steps, and saves again, as the next job would."""
    group = runtime.init_distributed()
    outcomes = []
    for folder in folders:
        engine = new_engine()
        loaded, _ = engine.load_checkpoint(folder)
        outcomes.append((loaded, [engine.train_batch().item() for _ in range(2)]))
        engine.save_checkpoint(folder)
    shutdown(group)
    return outcomes


def test_a_job_killed_before_any_change_on_disk_leaves_the_newest_whole_checkpoint(
    ranks: Ranks, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    ranks(first_checkpoint, 1, str(good), timeout_seconds=120)
    whole = shutil.copytree(good, tmp_path / "whole")
    changes = ranks(save_until_killed, 1, str(whole), None, timeout_seconds=120)[0]
    committed = changes.index("rename global_step4")
    folders = []
    for number in range(len(changes)):
        folder = shutil.copytree(good, tmp_path / str(number))
        folders.append(str(folder))
        with pytest.raises(AssertionError, match=KILLED):
            ranks(save_until_killed, 1, str(folder), number, timeout_seconds=120)

    outcomes = ranks(continue_all, 1, folders, timeout_seconds=300)[0]

    written = {change.removeprefix("rename ") for change in changes if change.startswith("rename ")}
    assert {".metadata", "rank_0.pt", "progress.pt", "manifest.json", "global_step4", "latest"} <= written
    losses = plain_loop().losses
    for number, (loaded, after) in enumerate(outcomes):
        # Until `latest` has its new name it says step 3; the rename of the folder is the commit.
        step = 3 if number <= changes.index("rename latest") else 4
        assert loaded == f"{folders[number]}/global_step{step}", changes[number]
        assert after == pytest.approx(losses[step : step + 2], rel=1e-5), changes[number]
        assert (Path(folders[number]) / "global_step4").exists() == (number > committed), changes[number]
        assert not list(Path(folders[number]).glob(".*.partial")), changes[number]


def save_three_times(topology: Topology, folder: str) -> tuple[str, list[str]]:
    """The run's name, and the errors of its saves."""
    group = runtime.init_distributed()
    engine = new_engine()
    errors = []
    for _ in range(3):
        engine.train_batch()
        try:
            engine.save_checkpoint(folder)
        except RuntimeFault as e:
            errors.append(str(e))
    shutdown(group)
    return engine.run, errors


def test_of_two_jobs_that_save_into_one_folder_one_owns_it_and_the_other_is_told(
    ranks: Ranks, tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(ranks, save_three_times, 1, str(tmp_path), timeout_seconds=120) for _ in range(2)]
        (owner, none), (other, refusals) = sorted(
            (job.result()[0] for job in jobs), key=lambda it: len(it[1])
        )

    assert none == []
    assert len(refusals) == 3
    assert all(f"run {owner} saves there, and this is run {other}" in refusal for refusal in refusals)
    assert sorted(path.parent.name for path in tmp_path.glob("*/manifest.json")) == [
        f"global_step{step}" for step in (1, 2, 3)
    ]
    loaded, after = ranks(continue_all, 1, [str(tmp_path)], timeout_seconds=120)[0][0]
    assert loaded == str(tmp_path / "global_step3")
    assert after == pytest.approx(plain_loop().losses[3:5], rel=1e-5)
