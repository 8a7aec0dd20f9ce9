"""Optimizer states in files: equal losses, resumable, within half their size of memory, clear when full."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput, OffloadFailed
from runtime.topology import Topology
from runtime.train.offload.adam import DiskAdam
from tests.distributed.conftest import Ranks
from tests.distributed.small_disk import mount_small_disk
from tests.distributed.zero_job import SEED, Model, Samples, config_for, engine_loops, plain_loop

pytestmark = pytest.mark.distributed


def on_nvme(stage: int, folder: Path, *, parameters: bool = False, **changes: Any) -> dict[str, Any]:
    """Sub-groups so small that they cut parameters, and more of them than buffers."""
    disk = {"device": "nvme", "nvme_path": str(folder)}
    zero: dict[str, Any] = {"stage": stage, "offload_optimizer": {**disk, "buffer_count": 3}}
    if parameters:
        zero["offload_param"] = disk
    return config_for(stage, zero_optimization={**zero, "sub_group_size": 1024}, **changes)


def test_losses_are_those_without_offload(ranks: Ranks, tmp_path: Path) -> None:
    bf16 = {"bf16": {"enabled": True}}
    pairs = [
        (config_for(2), on_nvme(2, tmp_path)),
        (config_for(3), on_nvme(3, tmp_path)),
        (config_for(3), on_nvme(3, tmp_path, parameters=True)),
        (config_for(3, **bf16), on_nvme(3, tmp_path, **bf16)),
    ]

    histories = ranks(engine_loops, 2, [config for pair in pairs for config in pair], timeout_seconds=300)[0]

    for without, with_ in zip(histories[::2], histories[1::2], strict=True):
        assert with_.losses == pytest.approx(without.losses, rel=1e-6)
    assert list(tmp_path.iterdir()) == []


def save_then_go_on(topology: Topology, config: Mapping[str, Any], folder: str) -> list[float]:
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
    for _ in range(3):
        engine.train_batch()
    engine.save_checkpoint(folder)
    losses = [engine.train_batch().item() for _ in range(3)]
    shutdown(group)
    return losses


def resume(topology: Topology, configs: Sequence[Mapping[str, Any]], folder: str) -> list[list[float]]:
    group = runtime.init_distributed()
    losses = []
    for config in configs:
        engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
        engine.load_checkpoint(folder)
        losses.append([engine.train_batch().item() for _ in range(3)])
    shutdown(group)
    return losses


def test_states_go_into_checkpoints_and_come_from_them(ranks: Ranks, tmp_path: Path) -> None:
    disk, saved, saved_plain = tmp_path / "disk", str(tmp_path / "saved"), str(tmp_path / "plain")
    uninterrupted = ranks(save_then_go_on, 2, on_nvme(3, disk), saved, timeout_seconds=120)[0]
    plain = ranks(save_then_go_on, 2, config_for(2), saved_plain, timeout_seconds=120)[0]

    configs = [on_nvme(3, disk), on_nvme(2, disk), config_for(3)]
    resumed = ranks(resume, 2, configs, saved, timeout_seconds=120)
    from_plain = ranks(resume, 2, [on_nvme(3, disk)], saved_plain, timeout_seconds=120)

    for losses in (*resumed[0], *from_plain[0], plain):
        assert losses == pytest.approx(uninterrupted, rel=1e-6)


def start_with_a_small_disk(topology: Topology, folder: str, small_rank: int) -> tuple[str, str, str]:
    """Mounts a file system of 64 KiB over the folder, for this process alone, on one of the ranks."""
    group = runtime.init_distributed()
    if topology.rank == small_rank:
        mount_small_disk(folder, size="64k")
    try:
        runtime.initialize(model=Model(), training_data=Samples(), config=on_nvme(3, Path(folder)))
    except OffloadFailed as e:
        return e.asked, e.found, e.fix
    finally:
        shutdown(group)
    return "", "", ""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_on_one_rank_ends_every_rank_with_the_reason(ranks: Ranks, tmp_path: Path) -> None:
    answers = ranks(start_with_a_small_disk, 2, str(tmp_path), 1, timeout_seconds=60)

    assert answers[0] == answers[1]
    asked, found, fix = answers[0]
    assert asked.endswith(f"bytes of states in {tmp_path}")
    assert found.startswith("rank 1 on ")
    assert found.endswith(": No space left on device")
    assert fix.startswith("Free space there, choose another nvme_path")


def pass_an_optimizer(topology: Topology, folder: str) -> str:
    group = runtime.init_distributed()
    model = Model()
    made = torch.optim.AdamW(model.parameters())
    try:
        runtime.initialize(model=model, optimizer=made, config=on_nvme(3, Path(folder)))
    except BadInput as e:
        return e.found
    finally:
        shutdown(group)
    return ""


def test_an_optimizer_that_the_script_made_is_refused(ranks: Ranks, tmp_path: Path) -> None:
    assert ranks(pass_an_optimizer, 1, str(tmp_path)) == ["an optimizer that the script made"]


def train_a_part(topology: Topology, config: Mapping[str, Any]) -> tuple[bool, bool]:
    """LoRA's shape: all but one layer frozen, and the frozen weights in files as well."""
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    model = Model()
    model.requires_grad_(False)
    model.layers[1].requires_grad_(True)
    engine, *_ = runtime.initialize(model=model, training_data=Samples(), config=config)
    before = {name: p.full_tensor().clone() for name, p in model.named_parameters()}
    for _ in range(3):
        engine.train_batch()
    after = {name: p.full_tensor() for name, p in model.named_parameters()}
    shutdown(group)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return changed == trained, len(trained) == 4


def test_frozen_weights_are_in_files_too_and_stay(ranks: Ranks, tmp_path: Path) -> None:
    config = on_nvme(3, tmp_path, parameters=True, bf16={"enabled": True})

    assert ranks(train_a_part, 2, config, timeout_seconds=120) == [(True, True)] * 2


def cut_the_file(topology: Topology, folder: str, saved: str) -> tuple[str, str]:
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    engine, optimizer, *_ = runtime.initialize(
        model=Model(), training_data=Samples(), config=on_nvme(3, Path(folder))
    )
    assert isinstance(optimizer, DiskAdam)
    for _ in range(3):
        engine.train_batch()
    engine.save_checkpoint(saved)
    os.ftruncate(optimizer.state.files["exp_avg"]._descriptor, 4096)
    try:
        engine.train_batch()
    except OffloadFailed as e:
        return e.asked, e.found
    finally:
        shutdown(group)
    return "", ""


def test_states_that_cannot_be_read_end_the_step_and_the_last_checkpoint_is_whole(
    ranks: Ranks, tmp_path: Path
) -> None:
    disk, saved = tmp_path / "disk", str(tmp_path / "saved")

    [(asked, found)] = ranks(cut_the_file, 1, str(disk), saved, timeout_seconds=60)
    [[after]] = ranks(resume, 1, [on_nvme(3, disk)], saved, timeout_seconds=60)

    assert asked == f"read states from {disk}"
    assert found.startswith("the file ends before byte ")
    assert after == pytest.approx(plain_loop().losses[3:6], rel=1e-5)
