"""Which tensor of a checkpoint is where: in which file, from which byte, and which of its elements."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from runtime.untrusted.documents import LIMIT_BYTES, listed, mapping, parse, sides, text, whole
from runtime.untrusted.files import check_name

FORMAT = 1
Shape = tuple[int, ...]
# Bytes of an element, by the name of its type in torch.
DTYPES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), 1),
    "complex128": 16,
}
_MOST_SIDE_BY_SIDE = 4096
# A chunk takes 1,200 bytes of a shard, and less than 150 of the list.
_SHARDS_PER_BYTE = 8
_MOST_BYTES = 2**30  # of the list: shards of holes can be of any size


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A box of a tensor's elements, from `offsets` on, and where torch.save wrote it in which file."""

    file: str
    start: int
    length: int
    offsets: Shape
    sizes: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor's type and shape, and the chunks that make it up; empty chunks are left out."""

    dtype: str
    shape: Shape
    chunks: tuple[Chunk, ...]


Table = Mapping[str, Tensor]


def limit_for(shard_bytes: int) -> int:
    """Bytes that the list of shards of this size may have."""
    return min(max(LIMIT_BYTES, shard_bytes // _SHARDS_PER_BYTE), _MOST_BYTES)


def to_values(table: Table) -> dict[str, Any]:
    """The table as JSON holds it: files once, a chunk as one list of numbers."""
    files = sorted({chunk.file for tensor in table.values() for chunk in tensor.chunks})
    numbers = {name: number for number, name in enumerate(files)}
    return {
        "format": FORMAT,
        "files": files,
        "tensors": {
            name: [
                tensor.dtype,
                list(tensor.shape),
                [[numbers[c.file], c.start, c.length, *c.offsets, *c.sizes] for c in tensor.chunks],
            ]
            for name, tensor in table.items()
        },
    }


def to_json(table: Table) -> bytes:
    """The table as it lies on disk."""
    return json.dumps(to_values(table), separators=(",", ":")).encode() + b"\n"


def from_json(content: bytes, limit_bytes: int) -> Table:
    """Reads a table; what it says of files is not yet compared with them, see `check`.

    Raises:
        ValueError: it is damaged or too large.
    """
    return from_values(parse(content, limit_bytes=limit_bytes))


def from_values(values: Any) -> Table:
    """Reads what `to_values` made.

    Raises:
        ValueError: it is something else.
    """
    fields = mapping(values, "the list of tensors", ("format", "files", "tensors"))
    whole(fields["format"], "its format", low=FORMAT, high=FORMAT)
    files = listed(fields["files"], "its list of files", check_name)
    tensors = mapping(fields["tensors"], "its tensors")
    return {text(name, "a tensor's name"): _tensor(name, value, files) for name, value in tensors.items()}


def merge(parts: Iterable[Table]) -> Table:
    """The table of all ranks from that of each.

    Raises:
        ValueError: ranks mean different tensors by one name.
    """
    merged: dict[str, Tensor] = {}
    for name, tensor in (pair for part in parts for pair in part.items()):
        known = merged.get(name, tensor)
        if (known.dtype, known.shape) != (tensor.dtype, tensor.shape):
            raise ValueError(f"ranks hold {name} in different types or shapes")
        chunks = tensor.chunks if name not in merged else (*known.chunks, *tensor.chunks)
        merged[name] = Tensor(dtype=known.dtype, shape=known.shape, chunks=chunks)
    return merged


def check(table: Table, files: Mapping[str, int]) -> None:
    """Chunks lie apart in these files (sizes in bytes by name), and make up each tensor once.

    Raises:
        ValueError: they do not.
    """
    for name, tensor in table.items():
        _check_tensor(name, tensor)
    by_file: dict[str, list[Chunk]] = {}
    for chunk in (chunk for tensor in table.values() for chunk in tensor.chunks):
        by_file.setdefault(chunk.file, []).append(chunk)
    for file, chunks in by_file.items():
        if file not in files:
            raise ValueError(f"it lists parts of {file}, which the manifest does not")
        _check_apart(file, chunks, files[file])


def _tensor(name: str, values: Any, files: Sequence[str]) -> Tensor:
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError(f"{name} has no type, shape and chunks")
    dtype, shape, chunks = values
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} has an unknown type")
    lengths = sides(_numbers(shape, f"the shape of {name}"), f"the shape of {name}")
    return Tensor(
        dtype=dtype,
        shape=lengths,
        chunks=listed(chunks, f"the chunks of {name}", lambda c: _chunk(name, c, files, len(lengths))),
    )


def _chunk(name: str, values: Any, files: Sequence[str], dims: int) -> Chunk:
    numbers = _numbers(values, f"a chunk of {name}")
    if len(numbers) != 3 + 2 * dims or numbers[0] >= len(files):
        raise ValueError(f"a chunk of {name} does not fit its {dims} dimensions, or is in no file")
    file, start, length, *box = numbers
    return Chunk(
        file=files[file],
        start=start,
        length=length,
        offsets=tuple(box[:dims]),
        sizes=tuple(box[dims:]),
    )


def _numbers(values: Any, what: str) -> Shape:
    return listed(values, what, lambda value: whole(value, what))


def _check_tensor(name: str, tensor: Tensor) -> None:
    size = DTYPES[tensor.dtype]
    if prod(tensor.shape) * size >= 2**63:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, which no machine holds")
    for chunk in tensor.chunks:
        ends = (o + s for o, s in zip(chunk.offsets, chunk.sizes, strict=True))
        if any(end > side for end, side in zip(ends, tensor.shape, strict=True)):
            raise ValueError(f"a chunk of {name} lies outside of its shape {list(tensor.shape)}")
        if prod(chunk.sizes) * size > chunk.length:
            raise ValueError(f"a chunk of {name} is larger than the {chunk.length} bytes that hold it")
    if sum(prod(chunk.sizes) for chunk in tensor.chunks) != prod(tensor.shape) or _overlap(tensor.chunks):
        raise ValueError(f"the chunks of {name} do not make up its shape {list(tensor.shape)}")


def _overlap(chunks: Sequence[Chunk]) -> bool:
    """Whether an element is in two chunks; without, a sum of sizes that is right leaves no hole."""
    beside: list[Chunk] = []
    for chunk in sorted(_solid(chunks), key=lambda chunk: chunk.offsets):
        beside = [one for one in beside if not one.sizes or one.offsets[0] + one.sizes[0] > chunk.offsets[0]]
        if any(_meet(one, chunk) for one in beside):
            return True
        beside.append(chunk)
        if len(beside) > _MOST_SIDE_BY_SIDE:
            raise ValueError(f"it has more than {_MOST_SIDE_BY_SIDE} chunks side by side")
    return False


def _solid(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    return (chunk for chunk in chunks if prod(chunk.sizes))


def _meet(one: Chunk, other: Chunk) -> bool:
    return all(
        a < b + m and b < a + n
        for a, n, b, m in zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
    )


def _check_apart(file: str, chunks: Iterable[Chunk], size: int) -> None:
    ordered = sorted(chunks, key=lambda chunk: chunk.start)
    if any(one.start + one.length > other.start for one, other in pairwise(ordered)):
        raise ValueError(f"parts of {file} overlap")
    if ordered[-1].start + ordered[-1].length > size:
        raise ValueError(f"it lists a part of {file} that ends beyond its {size} bytes")
