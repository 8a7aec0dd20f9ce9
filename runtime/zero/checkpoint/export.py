"""Export to safetensors: whole weights under the model's own names, one tensor in memory at a time."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from runtime.errors import BadInput, CheckpointFailed
from runtime.zero.checkpoint.folder import Entry, sync_folder, write_atomically
from runtime.zero.checkpoint.manifest import inspect
from runtime.zero.checkpoint.save import PROGRESS
from runtime.zero.checkpoint.state import MODEL

# https://github.com/huggingface/safetensors#format
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One tensor of the export: its name, shape and type in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def export(entry: Entry, target: Path, *, dtype: torch.dtype | None, file_bytes: int) -> list[Path]:
    """Writes model.safetensors, or several files of at most `file_bytes` with an index.

    Args:
        dtype: type of floating weights in the files; as they were trained (fp32) where None.

    Raises:
        CheckpointFailed: the checkpoint is damaged.
        BadInput: the target exists.
    """
    _check(entry, target)
    target.mkdir(parents=True)
    progress = torch.load(entry.path / PROGRESS, weights_only=True)
    whole = {key: value for key, value in progress["tensors"].items() if key.startswith(MODEL)}
    parts = split_by_size(_weights(entry.path, whole, dtype), file_bytes)
    names = _file_names(len(parts))
    for name, weights in zip(names, parts, strict=True):
        _write(target / name, weights, entry.path, whole)
    if len(parts) > 1:
        _write_index(target, dict(zip(names, parts, strict=True)))
    sync_folder(target)
    return [target / name for name in names]


def split_by_size(weights: list[Weight], file_bytes: int) -> list[list[Weight]]:
    """Weights in their order, in files that hold at most `file_bytes` or one weight."""
    parts: list[list[Weight]] = [[]]
    for weight in weights:
        if parts[-1] and sum(w.size for w in parts[-1]) + weight.size > file_bytes:
            parts.append([])
        parts[-1].append(weight)
    return parts


def header_of(weights: list[Weight]) -> bytes:
    """The header of a safetensors file: its length in 8 bytes, then JSON, padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for weight in weights:
        end = offset + weight.size
        header[weight.name] = {
            "dtype": NAMES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _check(entry: Entry, target: Path) -> None:
    faults = (
        [str(damage) for damage in inspect(entry.path, entry.manifest)] if entry.manifest else [entry.fault]
    )
    if faults:
        raise CheckpointFailed(
            f"export {entry.path}",
            found="; ".join(faults),
            fix="Export another one, or bring the files together.",
        )
    if target.exists():
        raise BadInput(f"export to {target}", found="it exists", fix="Name a new folder.")


def _weights(path: Path, whole: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> list[Weight]:
    sharded = FileSystemReader(path).read_metadata().state_dict_metadata
    found = {
        key: (tuple(entry.size), entry.properties.dtype)
        for key, entry in sharded.items()
        if key.startswith(MODEL) and isinstance(entry, TensorStorageMetadata)
    } | {key: (tuple(value.shape), value.dtype) for key, value in whole.items()}
    return [
        Weight(
            name=key.removeprefix(MODEL),
            shape=shape,
            dtype=dtype if dtype is not None and kind.is_floating_point else kind,
        )
        for key, (shape, kind) in found.items()
    ]


def _read(key: str, shape: tuple[int, ...], path: Path, whole: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if key in whole:
        return whole[key]
    tensors = {key: torch.empty(shape)}
    with warnings.catch_warnings():  # that there is no process group is the point
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        state_dict_loader.load(tensors, storage_reader=FileSystemReader(path), no_dist=True)
    return tensors[key]


def _write(file: Path, weights: list[Weight], path: Path, whole: Mapping[str, torch.Tensor]) -> None:
    with file.open("wb") as stream:
        stream.write(header_of(weights))
        for weight in weights:
            tensor = _read(MODEL + weight.name, weight.shape, path, whole).to(weight.dtype).contiguous()
            stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _file_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _write_index(target: Path, files: Mapping[str, list[Weight]]) -> None:
    index = {
        "metadata": {"total_size": sum(weight.size for part in files.values() for weight in part)},
        "weight_map": dict(_pairs(files)),
    }
    write_atomically(target / INDEX, (json.dumps(index, indent=1) + "\n").encode())


def _pairs(files: Mapping[str, list[Weight]]) -> Iterator[tuple[str, str]]:
    for name, weights in files.items():
        yield from ((weight.name, name) for weight in weights)
