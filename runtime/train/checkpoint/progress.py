"""What is kept beside the shards: progress.pt, with the tensors that every rank has whole, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.train.checkpoint.archive import read_archive
from runtime.train.checkpoint.manifest import Manifest
from runtime.untrusted.documents import mapping, whole

PROGRESS = "progress.pt"
_KINDS: Mapping[str, tuple[type, ...]] = {
    "loss_scale": (dict,),
    "lr_scheduler": (dict, type(None)),
    "param_groups": (list,),
    "client_state": (dict,),
}


def read_progress(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """All that `progress_of` made.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or holds something else.
    """
    progress = _read(folder, manifest)
    for name, kinds in _KINDS.items():
        if not isinstance(progress.get(name, ...), kinds):
            raise ValueError(f"{PROGRESS}: its {name} is damaged")
    whole(progress.get("global_steps"), f"{PROGRESS}: global_steps")
    whole(progress.get("skipped_steps"), f"{PROGRESS}: skipped_steps")
    if not all(isinstance(group, dict) for group in progress["param_groups"]):
        raise ValueError(f"{PROGRESS}: its param_groups are damaged")
    return progress


def read_whole(folder: Path, manifest: Manifest) -> dict[str, torch.Tensor]:
    """The tensors that every rank has whole, by name.

    Raises:
        OSError, ValueError: see `read_progress`.
    """
    tensors: dict[str, torch.Tensor] = _read(folder, manifest)["tensors"]
    return tensors


def _read(folder: Path, manifest: Manifest) -> dict[str, Any]:
    if PROGRESS not in manifest.files:
        raise ValueError(f"the manifest lists no {PROGRESS}")
    try:
        progress = mapping(read_archive(folder / PROGRESS), "it")
        tensors = mapping(progress.get("tensors"), "its tensors")
        if not all(isinstance(one, torch.Tensor) and isinstance(key, str) for key, one in tensors.items()):
            raise ValueError("it holds no tensors by name")
    except ValueError as e:
        raise ValueError(f"{PROGRESS}: {e}") from e
    return progress
