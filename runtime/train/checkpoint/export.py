"""Export to safetensors: whole weights under the model's own names, one tensor in memory at a time."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.errors import BadInput, CheckpointFailed
from runtime.train.checkpoint.folder import Entry, commit, write_atomically
from runtime.train.checkpoint.listing import read_table
from runtime.train.checkpoint.manifest import inspect
from runtime.train.checkpoint.shards import read_shards
from runtime.train.checkpoint.state import MODEL, read_whole
from runtime.train.checkpoint.table import Table

# https://github.com/huggingface/safetensors#format
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
INDEX = "model.safetensors.index.json"
_FIX = "Export another one, or bring the files together from where it was saved."
OnProgress = Callable[[int, int], None]  # bytes of weights that are written, and of all


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saved:
    """A checkpoint: where its sharded tensors are, and the model's that every rank has whole."""

    path: Path
    table: Table
    whole: Mapping[str, torch.Tensor]


def export(
    entry: Entry,
    target: Path,
    *,
    dtype: torch.dtype | None,
    file_bytes: int,
    on_progress: OnProgress = lambda written, total: None,
) -> list[Path]:
    """Writes model.safetensors, or several files of at most `file_bytes` with an index.

    Args:
        dtype: type of floating weights in the files; as they were trained (fp32) where None.

    Raises:
        CheckpointFailed: the checkpoint is damaged, or the disk takes no more; nothing is left then.
        BadInput: the target exists.
    """
    _check(entry, target)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")  # nobody else's name
    try:
        partial.mkdir(parents=True)
        names = _write_all(_open(entry), partial, dtype, file_bytes, on_progress)
        commit(partial, target)
    except OSError as e:
        raise CheckpointFailed(
            f"export {entry.path} to {target}", found=str(e), fix="See `df` and `ls -ld` there."
        ) from e
    except (ValueError, RuntimeError) as e:
        raise CheckpointFailed(f"export {entry.path}", found=str(e), fix=_FIX) from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
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
            fix=_FIX,
        )
    if target.exists():
        raise BadInput(f"export to {target}", found="it exists", fix="Name a new folder.")


def _open(entry: Entry) -> _Saved:
    assert entry.manifest is not None  # checked before
    whole = read_whole(entry.path, entry.manifest)
    return _Saved(
        path=entry.path,
        table=read_table(entry.path, entry.manifest),
        whole={key: value for key, value in whole.items() if key.startswith(MODEL)},
    )


def _write_all(
    saved: _Saved, folder: Path, dtype: torch.dtype | None, file_bytes: int, on_progress: OnProgress
) -> list[str]:
    weights = _weights(saved, dtype)
    parts = split_by_size(weights, file_bytes)
    names = _file_names(len(parts))
    written, total = 0, sum(weight.size for weight in weights)
    for name, part in zip(names, parts, strict=True):
        for weight in _write(folder / name, part, saved):
            written += weight.size
            on_progress(written, total)
    if len(parts) > 1:
        _write_index(folder, dict(zip(names, parts, strict=True)))
    return names


def _weights(saved: _Saved, dtype: torch.dtype | None) -> list[Weight]:
    found = {
        key: (tensor.shape, getattr(torch, tensor.dtype))
        for key, tensor in saved.table.items()
        if key.startswith(MODEL)
    } | {key: (tuple(value.shape), value.dtype) for key, value in saved.whole.items()}
    unknown = next((key for key, (_, kind) in found.items() if kind not in NAMES), None)
    if unknown is not None:
        raise ValueError(f"{unknown} is of {found[unknown][1]}, which safetensors files do not hold")
    return [
        Weight(
            name=key.removeprefix(MODEL),
            shape=shape,
            dtype=dtype if dtype is not None and kind.is_floating_point else kind,
        )
        for key, (shape, kind) in found.items()
    ]


def _read(weight: Weight, saved: _Saved) -> torch.Tensor:
    key = MODEL + weight.name
    if key in saved.whole:
        return saved.whole[key].detach().to(weight.dtype)
    tensor = torch.empty(weight.shape, dtype=weight.dtype)
    read_shards(saved.path, saved.table, {key: tensor})
    return tensor


def _write(file: Path, weights: list[Weight], saved: _Saved) -> Iterator[Weight]:
    """Yields each weight when it is in the file."""
    with file.open("wb") as stream:
        stream.write(header_of(weights))
        for weight in weights:
            tensor = _read(weight, saved).contiguous()
            stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            del tensor  # before the next one is read
            yield weight
        stream.flush()
        os.fsync(stream.fileno())


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
