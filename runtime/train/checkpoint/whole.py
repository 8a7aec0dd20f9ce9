"""A checkpoint's weights whole in memory, and tensors as a file should hold them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from runtime.errors import BadInput
from runtime.train.checkpoint.deepspeed.source import is_deepspeed
from runtime.train.checkpoint.export import export
from runtime.train.checkpoint.folder import Entry, find, read_latest
from runtime.train.weights.files import Source, open_weights

_NO_LIMIT = 1 << 62


def get_fp32_state_dict_from_zero_checkpoint(
    checkpoint_dir: str | Path,
    tag: str | None = None,
    exclude_frozen_parameters: bool = False,
    lazy_mode: bool = False,
) -> dict[str, torch.Tensor]:
    """The trained weights in fp32, whole, by the model's names; in a process of its own, not collective.

    Raises:
        BadInput: there is no such checkpoint, DeepSpeed saved it, or frozen parameters are to be left out.
        CheckpointFailed: it is damaged.
    """
    if exclude_frozen_parameters:
        raise BadInput(
            "read weights without the frozen ones",
            found="a checkpoint, which does not say which are frozen",
            fix="Save it with exclude_frozen_parameters=True, or drop them by their names.",
        )
    entry = _chosen(Path(checkpoint_dir), tag)
    with TemporaryDirectory() as folder:
        target = Path(folder) / "weights"
        export(entry, target, dtype=None, file_bytes=_NO_LIMIT)
        return {name: _read(source) for name, source in open_weights(target).items()}


def convert_zero_checkpoint_to_fp32_state_dict(
    checkpoint_dir: str | Path,
    output_dir: str | Path,
    max_shard_size: str | None = "5GB",
    safe_serialization: bool = True,
    tag: str | None = None,
    exclude_frozen_parameters: bool = False,
) -> None:
    """Writes them as safetensors into a new folder; `python -m runtime checkpoint export` does the same."""
    if exclude_frozen_parameters:
        get_fp32_state_dict_from_zero_checkpoint(checkpoint_dir, tag, exclude_frozen_parameters)
    export(_chosen(Path(checkpoint_dir), tag), Path(output_dir), dtype=None, file_bytes=5_000_000_000)


def load_state_dict_from_zero_checkpoint(
    model: nn.Module, checkpoint_dir: str | Path, tag: str | None = None
) -> nn.Module:
    """Puts them into a model that is not sharded, and returns it."""
    model.load_state_dict(get_fp32_state_dict_from_zero_checkpoint(checkpoint_dir, tag), strict=False)
    return model


def clone_tensors_for_torch_save(item: Any, device: str | torch.device = "cpu") -> Any:
    """A copy of nested lists, tuples and dicts in which each tensor is one of its own, whole and on a device.

    A file then holds a tensor's elements and none of a buffer around it.
    """
    if isinstance(item, torch.Tensor):
        return item.detach().to(device, copy=True)
    if isinstance(item, list | tuple):
        return type(item)(clone_tensors_for_torch_save(one, device) for one in item)
    if isinstance(item, dict):
        return type(item)((key, clone_tensors_for_torch_save(one, device)) for key, one in item.items())
    return item


def _chosen(root: Path, tag: str | None) -> Entry:
    if is_deepspeed(root):
        raise BadInput(
            f"read weights from {root}",
            found="DeepSpeed saved it",
            fix=f"Run `python -m runtime checkpoint import {root} FOLDER` first.",
        )
    found = find(root)
    wanted = tag or read_latest(root)
    entry = found[0] if len(found) == 1 and tag is None else next((e for e in found if e.tag == wanted), None)
    if entry is None:
        raise BadInput(
            f"read weights from {root}",
            found=f"no checkpoint {wanted or 'that `latest` names'} among {len(found)}",
            fix=f"`python -m runtime checkpoint list {root}` lists them.",
        )
    return entry


def _read(source: Source) -> torch.Tensor:
    whole = source.read(0, torch.Size(source.shape).numel()).reshape(source.shape)
    return whole.float() if whole.is_floating_point() else whole
