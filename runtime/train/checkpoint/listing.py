"""A checkpoint's list of shards, `.metadata`: JSON since format 2; in 1 torch's pickle, read as values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.train.checkpoint.manifest import Manifest
from runtime.train.checkpoint.table import DTYPES, Chunk, Shape, Table, Tensor, check, from_json, limit_for
from runtime.untrusted.documents import sides, text, whole
from runtime.untrusted.files import check_name, read_plain
from runtime.untrusted.pickles import MOST_OPERATIONS, PlainUnpickler

METADATA = ".metadata"
_JSON = b"{"
_FOLDER = "torch.distributed.checkpoint."
# By a tensor's name and a chunk's offsets as text: whoever chooses numbers chooses their hash.
_Places = dict[tuple[str, str], "_Inert"]
# A chunk takes 1,200 bytes of a shard, and less than 50 operations.
_SHARDS_PER_OPERATION = 24


def read_table(folder: Path, manifest: Manifest) -> Table:
    """Which tensor is where; of checkpoints of format 1 and of torch's own saver as well.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or does not fit the files that the manifest lists.
    """
    if METADATA not in manifest.files:
        raise ValueError(f"the manifest lists no {METADATA}")
    shard_bytes = manifest.total_bytes - manifest.files[METADATA].size
    limit = limit_for(shard_bytes)
    try:
        content = read_plain(folder / METADATA, limit)
        table = from_json(content, limit) if content.startswith(_JSON) else from_pickle(content, shard_bytes)
        check(table, {name: record.size for name, record in manifest.files.items()})
    except ValueError as e:
        raise ValueError(f"{METADATA}: {e}") from e
    return table


class _Inert:
    """An object without its class: arguments and state, and nothing that it could do.

    Names are those that such files hold (torch 2.6 to 2.13, distributed/checkpoint/metadata.py).
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None


class _Metadata(_Inert): ...


class _TensorMetadata(_Inert): ...


class _BytesMetadata(_Inert): ...


class _ChunkMetadata(_Inert): ...


class _Properties(_Inert): ...


class _Index(_Inert): ...


class _Place(_Inert): ...


class _Size(_Inert): ...


class _Type(_Inert): ...


_CLASSES: Mapping[str, type[_Inert]] = {
    f"{_FOLDER}metadata.Metadata": _Metadata,
    f"{_FOLDER}metadata.TensorStorageMetadata": _TensorMetadata,
    f"{_FOLDER}metadata.BytesStorageMetadata": _BytesMetadata,
    f"{_FOLDER}metadata.ChunkStorageMetadata": _ChunkMetadata,
    f"{_FOLDER}metadata.TensorProperties": _Properties,
    f"{_FOLDER}metadata.MetadataIndex": _Index,
    f"{_FOLDER}filesystem._StorageInfo": _Place,
    f"{_FOLDER}metadata._MEM_FORMAT_ENCODING": _Inert,
    f"{_FOLDER}metadata.StorageMeta": _Inert,
    "torch.Size": _Size,
    "torch.serialization._get_layout": _Inert,
    "builtins.getattr": _Inert,  # how Python 3.11.0 to 3.11.4 writes a member of an enumeration
    "pathlib.PosixPath": _Inert,
    "pathlib._local.PosixPath": _Inert,
}


class _Reader(PlainUnpickler):
    objects = True
    what = "a list of shards"

    def known(self, name: str) -> Any:
        """Classes without behaviour; a type of elements by its name."""
        kind = name.removeprefix("torch.")
        return _Type(kind) if name != kind and kind in DTYPES else _CLASSES.get(name)

    def fill(self, made: Any, state: Any) -> None:
        """Keeps the state beside the arguments."""
        if not isinstance(made, _Inert):
            super().fill(made, state)
        made.state = state


def from_pickle(content: bytes, shard_bytes: int) -> Table:
    """Reads torch's `.metadata` of shards of this size.

    Raises:
        ValueError: it is damaged, too large, or holds anything but which tensor is where.
    """
    most = max(MOST_OPERATIONS, shard_bytes // _SHARDS_PER_OPERATION)
    metadata = _Reader(content, operations=most).read_all()
    try:
        return _table(metadata)
    except (AttributeError, TypeError, KeyError) as e:
        raise ValueError("it does not say which tensor is where") from e


def _table(metadata: Any) -> Table:
    fields = _state(metadata, _Metadata)
    places: _Places = {}
    for index, place in _pairs(fields["storage_data"]):
        at = _state(index, _Index)
        offset = str(_shape(at["offset"])) if at.get("offset") is not None else ""
        places[text(at["fqn"], "a tensor's name"), offset] = place
    tensors = _pairs(fields["state_dict_metadata"])
    return {text(name, "a tensor's name"): _tensor(name, about, places) for name, about in tensors}


def _tensor(name: str, about: Any, places: _Places) -> Tensor:
    if isinstance(about, _BytesMetadata):
        raise ValueError(f"{name} is no tensor but a pickled object, which is not read")
    fields = _state(about, _TensorMetadata)
    dtype = fields["properties"].state[0]
    if not isinstance(fields["properties"], _Properties) or not isinstance(dtype, _Type):
        raise ValueError(f"{name} has no type")
    shape = _shape(fields["size"])
    boxes = [_state(chunk, _ChunkMetadata) for chunk in fields["chunks"]]
    chunks = tuple(_chunk(name, box, places, len(shape)) for box in boxes if 0 not in _shape(box["sizes"]))
    return Tensor(dtype=dtype.arguments[0], shape=shape, chunks=chunks)


def _chunk(name: str, box: Mapping[str, Any], places: _Places, dims: int) -> Chunk:
    offsets, sizes = _shape(box["offsets"]), _shape(box["sizes"])
    if len(offsets) != dims or len(sizes) != dims:
        raise ValueError(f"a chunk of {name} does not fit its {dims} dimensions")
    place = places.get((name, str(offsets)), places.get((name, "")))
    if place is None:
        raise ValueError(f"a chunk of {name} is in no file")
    fields = _state(place, _Place)
    if fields.get("transform_descriptors"):
        raise ValueError(f"{name} was written through an extension of torch, which is not run")
    return Chunk(
        file=check_name(fields["relative_path"]),
        start=whole(fields["offset"], "an offset"),
        length=whole(fields["length"], "a length"),
        offsets=offsets,
        sizes=sizes,
    )


def _state(made: Any, kind: type[_Inert]) -> Mapping[str, Any]:
    if type(made) is not kind or not isinstance(made.state, dict):
        raise ValueError("it does not say which tensor is where")
    return made.state


def _shape(size: Any) -> Shape:
    [lengths] = size.arguments if type(size) is _Size else ()
    return sides(lengths, "a size")


def _pairs(values: Any) -> list[tuple[Any, Any]]:
    if not isinstance(values, dict):
        raise ValueError("it does not say which tensor is where")
    return list(values.items())
