"""A checkpoint's weights whole in memory, and tensors as a file should hold them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from runtime.errors import BadInput
from runtime.train.checkpoint.deepspeed.source import is_deepspeed
from runtime.train.checkpoint.export import export
from runtime.train.checkpoint.folder import Entry, find, read_latest
from runtime.train.estimate.report import parse_bytes
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
    _refuse_without_frozen(exclude_frozen_parameters)
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
    """Writes them as safetensors into a new folder; `python -m runtime checkpoint export` does the same.

    Args:
        max_shard_size: of a file, as 5GB; one file where None.

    Raises:
        BadInput: pickled files are asked for, or as `get_fp32_state_dict_from_zero_checkpoint`.
    """
    _refuse_without_frozen(exclude_frozen_parameters)
    if not safe_serialization:
        raise BadInput(
            "write weights with safe_serialization=False",
            found="a format that runs code when it is read (pickle)",
            fix="Leave it out: safetensors are written, which transformers and PyTorch users read as well.",
        )
    most = parse_bytes(max_shard_size) if max_shard_size is not None else _NO_LIMIT
    export(_chosen(Path(checkpoint_dir), tag), Path(output_dir), dtype=None, file_bytes=most)


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
    return tree_map_only(torch.Tensor, lambda one: one.detach().to(device, copy=True), item)


def _refuse_without_frozen(exclude: bool) -> None:
    if exclude:
        raise BadInput(
            "read weights without the frozen ones",
            found="a checkpoint, which does not say which are frozen",
            fix="Save it with exclude_frozen_parameters=True, or drop them by their names.",
        )


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
