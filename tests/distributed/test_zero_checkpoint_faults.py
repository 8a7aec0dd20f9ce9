"""Whatever happens to a save or its files: no wrong weight is loaded, the newest whole one is found."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import runtime
from runtime.comm.group import Group, shutdown
from runtime.errors import RuntimeFault
from runtime.topology import Topology
from runtime.train.checkpoint.save import save
from runtime.train.engine import Engine
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, History, Model, Samples, config_for, plain_loop

pytestmark = pytest.mark.distributed
GOOD, LATER = 3, 4  # steps at which checkpoints are saved
Outcome = tuple[str | None, list[float], str]  # folder that was loaded, losses after it, error


@pytest.fixture(scope="module")
def plain() -> History:
    return plain_loop()


def new_engine(config: Mapping[str, Any] | None = None) -> Engine:
    torch.manual_seed(SEED)
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config or config_for(3))
    return engine


def in_group(topology: Topology) -> Group:
    return runtime.init_distributed(timeout_seconds=60)


def two_checkpoints(topology: Topology, folder: str) -> None:
    group = in_group(topology)
    engine = new_engine()
    for step in range(1, LATER + 1):
        engine.train_batch()
        if step >= GOOD:
            engine.save_checkpoint(folder)
    shutdown(group)


def continue_all(topology: Topology, folders: list[str], tag: str | None = None) -> list[Outcome]:
    """Loads from each folder with a new engine and takes two steps, or says why not."""
    group = in_group(topology)
    outcomes: list[Outcome] = []
    for folder in folders:
        engine = new_engine()
        try:
            loaded, _ = engine.load_checkpoint(folder, tag)
        except RuntimeFault as e:
            outcomes.append((None, [], str(e)))
        else:
            outcomes.append((loaded, [engine.train_batch().item() for _ in range(2)], ""))
    shutdown(group)
    return outcomes


def die_in_save(topology: Topology, folder: str, phase: str, victim: int) -> None:
    in_group(topology)
    engine = new_engine()
    engine.load_checkpoint(folder)
    engine.train_batch()

    def watch(name: str) -> None:
        if name == phase and topology.rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)

    save(engine, Path(folder), "global_step4", {}, watch=watch)


def die_in_a_file(topology: Topology, folder: str) -> None:
    """The kernel kills rank 1 in the middle of writing its shard."""
    in_group(topology)
    engine = new_engine()
    engine.load_checkpoint(folder)
    engine.train_batch()
    if topology.rank == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    engine.save_checkpoint(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved") / "checkpoints"


@pytest.fixture
def good(ranks: Ranks, saved: Path) -> Path:
    """A folder with the checkpoints of steps 3 and 4, made once."""
    if not saved.exists():
        ranks(two_checkpoints, 2, str(saved), timeout_seconds=300)
    return saved


def only_the_first(good: Path, target: Path) -> Path:
    """A copy of the folder as it was before the second save."""
    shutil.copytree(good, target, symlinks=True)
    shutil.rmtree(target / "global_step4")
    (target / "latest").write_text("global_step3")
    return target


PHASES = [("shards", 1), ("rest", 1), ("manifest", 0), ("rename", 0), ("latest", 0), ("prune", 0)]


def test_a_rank_killed_in_any_phase_of_a_save_loses_no_earlier_checkpoint(
    ranks: Ranks, plain: History, good: Path, tmp_path: Path
) -> None:
    folders = []
    for phase, victim in PHASES:
        folder = only_the_first(good, tmp_path / phase)
        folders.append(str(folder))
        with pytest.raises(AssertionError, match=f"rank {victim}: died without a word, exit status -9"):
            ranks(die_in_save, 2, str(folder), phase, victim, timeout_seconds=300)
    in_file = only_the_first(good, tmp_path / "file")
    folders.append(str(in_file))
    with pytest.raises(AssertionError, match=f"exit status -{int(signal.SIGXFSZ)}"):
        ranks(die_in_a_file, 2, str(in_file), timeout_seconds=300)

    outcomes = ranks(continue_all, 2, folders, timeout_seconds=300)[0]

    for (phase, _), (loaded, losses, error) in zip([*PHASES, ("file", 1)], outcomes, strict=True):
        step = 4 if phase == "prune" else 3
        assert not error, phase
        assert loaded == str(tmp_path / phase / f"global_step{step}"), phase
        assert losses == pytest.approx(plain.losses[step : step + 2], rel=1e-5), phase


def flip(path: Path) -> None:
    """64 bytes in the middle."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


DAMAGES: dict[str, tuple[str, Any, str]] = {
    "64 bytes of a shard flipped": ("__1_0.distcp", flip, "__1_0.distcp does not match its digest"),
    "a shard truncated": ("__0_0.distcp", truncate, "__0_0.distcp has "),
    "a shard deleted": ("__1_0.distcp", Path.unlink, "__1_0.distcp is missing"),
    "the metadata flipped": (".metadata", flip, ".metadata does not match its digest"),
    "the progress truncated": ("progress.pt", truncate, "progress.pt has "),
    "random states deleted": ("rank_0.pt", Path.unlink, "rank_0.pt is missing"),
    "the manifest flipped": ("manifest.json", flip, "manifest.json"),
}


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_loaded(
    ranks: Ranks, plain: History, good: Path, tmp_path: Path
) -> None:
    folders = []
    for name, (file, damage, _) in DAMAGES.items():
        folder = tmp_path / name
        shutil.copytree(good, folder)
        damage(folder / "global_step4" / file)
        folders.append(str(folder))

    outcomes = ranks(continue_all, 2, folders, timeout_seconds=300)[0]
    refused = ranks(continue_all, 2, folders[:-1], "global_step4", timeout_seconds=300)[0]

    for name, (loaded, losses, error) in zip(DAMAGES, outcomes, strict=True):
        assert (loaded, error) == (str(tmp_path / name / "global_step3"), ""), name
        assert losses == pytest.approx(plain.losses[3:5], rel=1e-5), name
    for (name, (_, _, said)), (loaded, _, error) in zip(DAMAGES.items(), refused, strict=False):
        assert loaded is None, name
        assert said in error, name


def full_disk_and_foreign_run(topology: Topology, folder: str) -> tuple[str, str, list[float], str | None]:
    group = in_group(topology)
    engine = new_engine()
    engine.load_checkpoint(folder)
    engine.train_batch()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if topology.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    full = foreign = ""
    try:
        engine.save_checkpoint(folder)
    except RuntimeFault as e:
        full = str(e)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    losses = [engine.train_batch().item() for _ in range(2)]
    engine.save_checkpoint(folder)
    try:
        new_engine().save_checkpoint(folder)
    except RuntimeFault as e:
        foreign = str(e)
    loaded, _ = new_engine().load_checkpoint(folder)
    shutdown(group)
    return full, foreign, losses, loaded


def test_a_disk_that_refuses_ends_the_save_on_all_ranks_and_training_goes_on(
    ranks: Ranks, plain: History, good: Path, tmp_path: Path
) -> None:
    folder = only_the_first(good, tmp_path / "full")

    for full, foreign, losses, loaded in ranks(
        full_disk_and_foreign_run, 2, str(folder), timeout_seconds=120
    ):
        assert "rank 1" in full
        assert "File too large" in full
        assert losses == pytest.approx(plain.losses[4:6], rel=1e-5)
        assert "saves there, and this is run" in foreign
        assert loaded == str(folder / "global_step6")
    assert not list(folder.glob(".*.partial"))
