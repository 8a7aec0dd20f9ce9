"""Checkpoints as somebody forges them: whatever is changed, the manifest's digests fit again."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata

METADATA, MANIFEST = ".metadata", "manifest.json"
SHARD = "__0_0.distcp"


SOME = {"model.layer.weight": torch.arange(12.0).view(3, 4), "model.layer.bias": torch.ones(2)}
STATE: dict[str, Any] = {
    "tensors": {"model.count": torch.tensor([3, 4])},
    "global_steps": 1,
    "skipped_steps": 0,
    "loss_scale": {},
    "lr_scheduler": None,
    "data": None,
    "param_groups": [{}],
    "client_state": {},
}


def written(root: Path, tag: str = "global_step1", tensors: Mapping[str, torch.Tensor] = SOME) -> Path:
    """A whole checkpoint of format 1, as torch's own saver lists its shards."""
    folder = root / tag
    with warnings.catch_warnings(action="ignore"):  # that there is no process group is the point
        state_dict_saver.save(dict(tensors), storage_writer=FileSystemWriter(folder))
    torch.save(STATE, folder / "progress.pt")
    sign(folder)
    (root / "latest").write_text(tag)
    return folder


def sign(folder: Path, **changes: Any) -> None:
    """Writes a manifest that fits the files, with these changes to it."""
    names = [path.name for path in folder.iterdir() if path.name != MANIFEST and path.is_file()]
    body = {
        "format": 1,
        "tag": folder.name,
        "run": "r",
        "step": 1,
        "stage": 3,
        "world_size": 1,
        "saved_at": 1.0,
        "files": {name: record(folder / name) for name in names},
        **changes,
    }
    (folder / MANIFEST).write_text(signed(body))


def signed(body: Mapping[str, Any]) -> str:
    """A manifest with a digest of itself."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, sort_keys=True)


def record(path: Path) -> dict[str, Any]:
    """What a manifest says of a file, whatever that file is."""
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "rank": 0}


def add(folder: Path, name: str) -> None:
    """Lists another file, by whatever name leads to it."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    sign(folder, files={**files, name: record(folder / name)})


class Attack:
    """Runs a command where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def change_metadata(folder: Path, change: Callable[[Metadata], object]) -> None:
    """Changes torch's list of shards, and signs it."""
    metadata = FileSystemReader(folder).read_metadata()
    change(metadata)
    (folder / METADATA).write_bytes(pickle.dumps(metadata))
    sign(folder)
