"""Where whole weights come from: safetensors files, or a callable; read by rank 0, a span at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from runtime.errors import BadInput

# https://github.com/huggingface/safetensors#format
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
INDEX = "model.safetensors.index.json"
ByName = Callable[[str], torch.Tensor]
Weights = str | Path | ByName


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A whole tensor; `read(start, stop)` gives a span of its elements in row-major order."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[int, int], torch.Tensor]


def in_memory(tensor: torch.Tensor) -> Source:
    """A tensor that exists whole."""
    flat = tensor.detach().cpu().reshape(-1)
    return Source(shape=tuple(tensor.shape), dtype=tensor.dtype, read=lambda start, stop: flat[start:stop])


def open_weights(weights: str | Path) -> dict[str, Source]:
    """Every tensor of a safetensors file, or of a folder with one, several, or an index of them.

    Raises:
        BadInput: it cannot be read.
    """
    found: dict[str, Source] = {}
    for path in _files(Path(weights)):
        try:
            found |= _tensors(path)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise BadInput(
                f"read weights from {path}",
                found=f"no whole safetensors file: {e}",
                fix="Name a model.safetensors or a folder with one, or pass a callable.",
            ) from e
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        index = path / INDEX
        if index.exists():
            return sorted({path / name for name in json.loads(index.read_text())["weight_map"].values()})
        files = sorted(path.glob("*.safetensors"))
        if files:
            return files
        raise BadInput(
            f"read weights from {path}",
            found="no *.safetensors in the folder",
            fix="Export them to safetensors, or pass a callable that returns a tensor by its name.",
        )
    return [path]


def _tensors(path: Path) -> dict[str, Source]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            raise ValueError("its header's length does not fit its size")
        header: Mapping[str, Any] = json.loads(file.read(length))
    data = 8 + length
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        if end - begin != prod(shape) * dtype.itemsize or data + end > size:
            raise ValueError(f"{name} lies outside of it, or has another size")
        found[name] = Source(shape=shape, dtype=dtype, read=_reader(path, data + begin, dtype))
    return found


def _reader(path: Path, offset: int, dtype: torch.dtype) -> Callable[[int, int], torch.Tensor]:
    def read(start: int, stop: int) -> torch.Tensor:
        if stop <= start:
            return torch.empty(0, dtype=dtype)
        span = torch.empty(stop - start, dtype=dtype)
        with path.open("rb") as file:
            file.seek(offset + start * dtype.itemsize)
            if file.readinto(span.view(torch.uint8).numpy().data) != span.nbytes:
                raise OSError(f"{path} ends early")
        return span

    return read
