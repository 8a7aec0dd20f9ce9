"""Where whole weights come from: safetensors files, or a callable; read by rank 0, a span at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from runtime.errors import BadInput
from runtime.untrusted.documents import listed, mapping, parse, sides, text, whole
from runtime.untrusted.files import check_name, open_plain, read_plain

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
NAMES = {kind: name for name, kind in DTYPES.items()}
INDEX = "model.safetensors.index.json"
# Of a header or an index: 1 MiB or a 64th of the weights, but a file of holes can be of any size. The format
# allows 100 MB.
_LIMIT_BYTES, _SHARE, _MOST_BYTES = 1024 * 1024, 64, 100_000_000
_MOST_ELEMENTS = 2**60
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

    An index and links are followed within the folder only, and to the `blobs` of a Hugging Face cache.

    Raises:
        BadInput: it cannot be read.
    """
    found: dict[str, Source] = {}
    for path in _files(Path(weights)):
        try:
            found |= _tensors(path)
        except (OSError, ValueError) as e:
            raise BadInput(
                f"read weights from {path}",
                found=f"no whole safetensors file: {e}",
                fix="Name a model.safetensors or a folder with one, or pass a callable.",
            ) from e
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        index = path / INDEX
        if os.path.lexists(index):
            return _in_index(index, sum(os.lstat(_within(file)).st_size for file in files))
        if files:
            return [_within(file) for file in files]
        raise BadInput(
            f"read weights from {path}",
            found="no *.safetensors in the folder",
            fix="Export them to safetensors, or pass a callable that returns a tensor by its name.",
        )
    return [path.resolve()]


def _in_index(index: Path, weight_bytes: int) -> list[Path]:
    limit = _limit(weight_bytes)
    try:
        fields = mapping(parse(read_plain(_within(index), limit), limit_bytes=limit, encoding="utf-8"), "it")
        names = {check_name(name) for name in mapping(fields.get("weight_map"), "its weight_map").values()}
    except (OSError, ValueError) as e:
        raise BadInput(
            f"read weights from {index}",
            found=str(e),
            fix="Its weight_map names files of the same folder; bring the folder again from where it was.",
        ) from e
    return sorted(_within(index.parent / name) for name in names)


def _limit(weight_bytes: int) -> int:
    return min(max(_LIMIT_BYTES, weight_bytes // _SHARE), _MOST_BYTES)


def _within(path: Path) -> Path:
    """Where a file of the folder is; a link may lead to the folder, or to a Hugging Face cache's blobs.

    Raises:
        BadInput: it leads elsewhere.
    """
    folder, real = path.parent.resolve(), path.resolve()
    if real.parent not in (folder, folder.parent.parent / "blobs"):
        raise BadInput(
            f"read weights from {path}",
            found=f"a link to {real}, outside of its folder",
            fix=f"Name {real} itself, or copy it into the folder.",
        )
    return real


def _tensors(path: Path) -> dict[str, Source]:
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        limit = _limit(size)
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, limit):
            raise ValueError(f"its header's length does not fit its size, or is more than {limit} bytes")
        header = mapping(parse(file.read(length), limit_bytes=limit, encoding="utf-8"), "its header")
    data = 8 + length
    return {
        name: _source(name, entry, path, data, size)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _source(name: str, entry: Any, path: Path, data: int, size: int) -> Source:
    fields = mapping(entry, text(name, "a tensor's name"), ("dtype", "shape", "data_offsets"))
    shape = sides(listed(fields["shape"], f"the shape of {name}", lambda side: side), f"the shape of {name}")
    ends = listed(fields["data_offsets"], f"the place of {name}", lambda end: whole(end, f"an end of {name}"))
    dtype = DTYPES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{name} has an unknown type")
    fits = len(ends) == 2 and prod(shape) < _MOST_ELEMENTS and data + ends[1] <= size
    if not fits or ends[1] - ends[0] != prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} lies outside of it, or has another size")
    return Source(shape=shape, dtype=dtype, read=_reader(path, data + ends[0], dtype))


def _reader(path: Path, offset: int, dtype: torch.dtype) -> Callable[[int, int], torch.Tensor]:
    def read(start: int, stop: int) -> torch.Tensor:
        if stop <= start:
            return torch.empty(0, dtype=dtype)
        span = torch.empty(stop - start, dtype=dtype)
        with open_plain(path) as file:
            file.seek(offset + start * dtype.itemsize)
            if file.readinto(span.view(torch.uint8).numpy().data) != span.nbytes:
                raise OSError(f"{path} ends early")
        return span

    return read
