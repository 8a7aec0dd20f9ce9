"""Nodes that do not share a disk: each keeps its own files and a copy of its neighbour's. And a full disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

import runtime
from runtime.comm.group import shutdown
from runtime.errors import RuntimeFault
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.small_disk import mount_small_disk
from tests.distributed.zero_job import SEED, Model, Samples, config_for, plain_loop

pytestmark = pytest.mark.distributed
WORLD = 3
PAGE = 4096
BATCH = 12  # of which two micro-steps give 1, 2 or 3 ranks whole samples


def disk_of(root: str, rank: int) -> Path:
    """Every rank has a disk of its own, under one name each."""
    return Path(root) / f"node{rank}"


def save_on_own_disks(topology: Topology, root: str, buddy: bool) -> list[float]:
    group = runtime.init_distributed(timeout_seconds=60)
    torch.manual_seed(SEED)
    config = config_for(3, train_batch_size=BATCH, checkpoint={"buddy": buddy})
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
    for _ in range(3):
        engine.train_batch()
    engine.save_checkpoint(disk_of(root, topology.rank))
    losses = [engine.train_batch().item() for _ in range(2)]
    shutdown(group)
    return losses


def load_from_own_disks(topology: Topology, root: str, stage: int) -> tuple[list[float], str]:
    group = runtime.init_distributed(timeout_seconds=60)
    config = config_for(stage, train_batch_size=BATCH)
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
    try:
        engine.load_checkpoint(disk_of(root, topology.rank))
    except RuntimeFault as e:
        return [], str(e)
    losses = [engine.train_batch().item() for _ in range(2)]
    shutdown(group)
    return losses, ""


def files(root: Path, rank: int) -> set[str]:
    return {path.name for path in (disk_of(str(root), rank) / "global_step3").iterdir()}


COMMON = {".metadata", "progress.pt", "manifest.json"}


def own(rank: int) -> set[str]:
    return {f"__{rank}_0.distcp", f"rank_{rank}.pt"}


def test_a_lost_node_loses_nothing(ranks: Ranks, tmp_path: Path) -> None:
    root = tmp_path / "all"
    uninterrupted = ranks(save_on_own_disks, WORLD, str(root), True, timeout_seconds=300)[0]

    assert [files(root, rank) for rank in range(WORLD)] == [
        COMMON | own(rank) | own((rank - 1) % WORLD) for rank in range(WORLD)
    ]

    shutil.rmtree(disk_of(str(root), 1))  # a new machine with an empty disk
    (disk_of(str(root), 2) / "global_step3" / "__2_0.distcp").unlink()  # and a damaged one
    for losses, error in ranks(load_from_own_disks, WORLD, str(root), 3, timeout_seconds=300):
        assert not error
        assert losses == pytest.approx(uninterrupted, rel=1e-5)

    assert own(1) | COMMON <= files(root, 1)
    assert own(2) <= files(root, 2)

    shutil.rmtree(disk_of(str(root), 2))  # and fewer machines, of another stage
    for losses, error in ranks(load_from_own_disks, 2, str(root), 1, timeout_seconds=300):
        assert not error
        assert losses == pytest.approx(uninterrupted, rel=1e-5)


def test_without_a_buddy_the_lost_file_is_named(ranks: Ranks, tmp_path: Path) -> None:
    root = tmp_path / "all"
    ranks(save_on_own_disks, 2, str(root), False, timeout_seconds=300)
    assert [files(root, rank) for rank in range(2)] == [COMMON | own(rank) for rank in range(2)]

    shutil.rmtree(disk_of(str(root), 1))

    for losses, error in ranks(load_from_own_disks, 2, str(root), 3, timeout_seconds=300):
        assert not losses
        assert "global_step3: __1_0.distcp is missing; rank_1.pt is missing" in error


def fill_the_disk(topology: Topology, folder: str) -> tuple[str, str | None, list[str], list[float]]:
    """Saves on a disk with room for one checkpoint and a half, and loads what is there."""
    group = runtime.init_distributed(timeout_seconds=60)
    torch.manual_seed(SEED)
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config_for(3))
    engine.train_batch()
    sizes = [file.stat().st_size for file in engine.save_checkpoint(f"{folder}.sized").iterdir()]
    pages = sum(-(-size // PAGE) for size in sizes)
    mount_small_disk(folder, size=str(3 * pages // 2 * PAGE))
    engine.save_checkpoint(folder)
    engine.train_batch()
    error = ""
    try:
        engine.save_checkpoint(folder)
    except RuntimeFault as e:
        error = str(e)
    left = sorted(path.name for path in Path(folder).iterdir())
    loaded, _ = engine.load_checkpoint(folder)
    losses = [engine.train_batch().item() for _ in range(2)]
    shutdown(group)
    return error, loaded, left, losses


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_the_checkpoint_before_it_and_no_pieces(ranks: Ranks, tmp_path: Path) -> None:
    [(error, loaded, left, losses)] = ranks(fill_the_disk, 1, str(tmp_path), timeout_seconds=60)

    assert "No space left on device" in error
    assert loaded == str(tmp_path / "global_step1")
    assert left == ["global_step1", "latest", "owner.json"]
    assert losses == pytest.approx(plain_loop().losses[1:3], rel=1e-5)
