"""Optimizer states in files: equal losses, resumable, within half their size of memory, clear when full."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import runtime
from runtime.comm.group import shutdown
from runtime.errors import OffloadFailed
from runtime.topology import Topology
from runtime.zero.offload.adam import DiskAdam
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, Model, Samples, config_for, engine_loops

pytestmark = pytest.mark.distributed
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 0x4000, 1 << 18


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
