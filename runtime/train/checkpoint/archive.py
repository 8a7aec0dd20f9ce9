"""Archives that torch.save wrote, read without torch.load: plain values and tensors, and nothing else.

An archive is a zip file of uncompressed records: `<name>/data.pkl`, a pickle in which a tensor is a call of
`torch._utils._rebuild_tensor_v2` on a storage's key, and `<name>/data/<key>`, the bytes of a storage
(https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/serialization/unpickler.cpp). A tensor takes no
more memory than its record, or 2^20 elements where its strides repeat elements.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import torch

from runtime.train.checkpoint.table import DTYPES, Chunk
from runtime.untrusted.documents import sides, whole
from runtime.untrusted.files import open_plain
from runtime.untrusted.pickles import MOST_OPERATIONS, PlainUnpickler

Storage = Callable[[str, torch.dtype, int], torch.Tensor]  # key, type, elements
_LOCAL_HEADER_BYTES = 30
_LOCKED = 1  # the flag of a record that is encrypted
_REPEATED = 2**20
_MOST_BYTES = 256 * 1024 * 1024  # of the pickle, and of the list of records: holes can be of any size
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


def read_archive(path: Path) -> Any:
    """What torch.save wrote into a file.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: it is damaged, or holds anything but plain values and tensors.
    """
    with open_plain(path) as file:
        return _Archive(file).read()


def read_bytes(content: bytes) -> Any:
    """What torch.save wrote into memory; raises as `read_archive` does."""
    return _Archive(io.BytesIO(content)).read()


def check_archive(path: Path) -> None:
    """Goes through an archive as `read_archive` does, without its tensors; names of any class may be in it.

    Raises:
        OSError, ValueError: see `read_archive`; a record that does not match its CRC-32 is damaged, too.
    """
    with open_plain(path) as file:
        archive = _Archive(file)
        content = archive.pickle()
        archive.check_sums()
        _Outline(content).read_all()


def read_chunk(file: BufferedReader, chunk: Chunk, dtype: str) -> torch.Tensor:
    """One chunk of a shard.

    Raises:
        OSError: the disk refuses.
        ValueError: it is damaged, or of another type or shape than the chunk.
    """
    tensor = _Archive(_Part(file, chunk.start, chunk.length)).read()
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != getattr(torch, dtype):
        raise ValueError(f"a part of {chunk.file} is no tensor of {dtype}")
    if tuple(tensor.shape) != chunk.sizes:
        raise ValueError(f"a part of {chunk.file} has shape {list(tensor.shape)}, not {list(chunk.sizes)}")
    return tensor


class _Part(io.RawIOBase):
    """A range of a file's bytes as a file."""

    def __init__(self, file: BufferedReader, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._length)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)[: max(0, self._length - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(room)
        self._at += count
        return count


class _Archive:
    """The records of one archive: where each begins, and its bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        self._records = _records(file, self._size)
        [self._folder] = {name.partition("/")[0] for name in self._records}

    def read(self) -> Any:
        return _Values(self.pickle(), self._storage).read_all()

    def pickle(self) -> bytes:
        if self._bytes("byteorder", b"little") != b"little":
            raise ValueError("it was written by a big-endian machine")
        return self._bytes("data.pkl")

    def check_sums(self) -> None:
        """Reads every record, none of which is packed, and compares it with its CRC-32."""
        try:
            with zipfile.ZipFile(self._file) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as e:
            raise ValueError(f"it is cut off or no archive of torch.save ({e})") from e
        if damaged is not None:
            raise ValueError(f"{damaged} in it does not match its CRC-32")

    def _bytes(self, name: str, default: bytes | None = None) -> bytes:
        record = self._records.get(f"{self._folder}/{name}")
        if record is None:
            if default is None:
                raise ValueError(f"it has no {name}")
            return default
        self._file.seek(self._start(record))
        content: bytes = _Sparing(self._file).read(record.file_size)
        return content

    def _storage(self, key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        record = self._records.get(f"{self._folder}/data/{key}")
        if record is None or record.file_size != count * dtype.itemsize:
            raise ValueError("a tensor's record is missing, or of another size")
        made = torch.empty(count, dtype=dtype)
        self._file.seek(self._start(record))
        if count and self._file.readinto(made.view(torch.uint8).numpy().data) != record.file_size:
            raise ValueError("it is cut off")
        return made

    def _start(self, record: zipfile.ZipInfo) -> int:
        self._file.seek(record.header_offset)
        header = self._file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(b"PK\x03\x04"):
            raise ValueError("it is damaged")
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = record.header_offset + _LOCAL_HEADER_BYTES + names
        if start + record.file_size > self._size:
            raise ValueError("it is cut off")
        return start


class _Sparing:
    """A file of which little is read at once, since so much memory is reserved before."""

    def __init__(self, file: Any) -> None:
        self._read, self.seek, self.tell = file.read, file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        """So many bytes, or what is left.

        Raises:
            ValueError: they are too many.
        """
        if count > _MOST_BYTES:
            raise ValueError(f"it asks for {count} bytes at once, and at most {_MOST_BYTES} are read")
        content: bytes = self._read(count)
        return content


def _records(file: Any, size: int) -> dict[str, zipfile.ZipInfo]:
    """Records by name: stored as they are, in one folder, no larger together than the archive."""
    try:
        with zipfile.ZipFile(_Sparing(file)) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as e:
        raise ValueError(f"it is cut off or no archive of torch.save ({e})") from e
    records = {record.filename: record for record in found}
    plain = all(
        r.compress_type == zipfile.ZIP_STORED and r.compress_size == r.file_size and not r.flag_bits & _LOCKED
        for r in found
    )
    if len(records) != len(found) or not plain or sum(record.file_size for record in found) > size:
        raise ValueError("its records are packed, encrypted or overlap, which torch.save does not do")
    if len({name.partition("/")[0] for name in records}) != 1:
        raise ValueError("its records are not in one folder")
    return records


class _Values(PlainUnpickler):
    objects = True
    what = "an archive of values and tensors"

    def __init__(self, content: bytes, storage: Storage) -> None:
        super().__init__(content, operations=max(MOST_OPERATIONS, len(content)))
        self._storage = storage
        self._made: dict[str, torch.Tensor] = {}

    def persistent_load(self, pid: Any) -> Any:
        """A storage: `("storage", type, key, location, elements)`."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("it asks for something else than a tensor's bytes")
        return _Stored(dtype, key, whole(count, "a tensor's size"))

    def known(self, name: str) -> Any:
        """What torch.save writes for tensors, types, and Python's own containers."""
        kind = name.removeprefix("torch.")
        if name != kind and (kind in DTYPES or kind in _STORAGES):
            return _STORAGES.get(kind) or getattr(torch, kind)
        if name == "torch._utils._rebuild_tensor_v2":
            return self._tensor
        if name == "torch._utils._rebuild_tensor_v3":
            return self._typed_tensor
        return _NAMES.get(name)

    def fill(self, made: Any, state: Any) -> None:
        """A module's state_dict carries the versions of its modules."""
        if type(made) is not OrderedDict or not isinstance(state, dict) or set(state) - {"_metadata"}:
            super().fill(made, state)
        made.__dict__.update(state)

    def _tensor(self, stored: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> torch.Tensor:
        return self._view(stored, stored.dtype, offset, size, stride, rest)

    def _typed_tensor(
        self, stored: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
    ) -> torch.Tensor:
        if not isinstance(dtype, torch.dtype):
            raise ValueError("a tensor has no type")
        counted = _Stored(dtype, stored.key, stored.count * stored.dtype.itemsize // dtype.itemsize)
        return self._view(counted, dtype, offset, size, stride, (grad,))

    def _view(
        self, stored: Any, dtype: torch.dtype, offset: Any, size: Any, stride: Any, rest: Any
    ) -> torch.Tensor:
        sizes, strides = sides(size, "a tensor's shape"), sides(stride, "a tensor's strides")
        last = sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
        if prod(sizes) and whole(offset, "a tensor's offset") + last >= stored.count:
            raise ValueError("a tensor is larger than its record")
        if prod(sizes) > max(stored.count, _REPEATED):
            raise ValueError("a tensor repeats the elements of a small record")
        if stored.key not in self._made:
            self._made[stored.key] = self._storage(stored.key, dtype, stored.count)
        elements = self._made[stored.key].view(dtype)
        if len(elements) != stored.count:
            raise ValueError("two tensors see one record in different sizes")
        made = elements.as_strided(sizes, strides, offset if prod(sizes) else 0)
        return made.requires_grad_(bool(rest and rest[0] is True))


class _Outline(_Values):
    """Goes through the operations and makes no tensor."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, lambda key, dtype, count: torch.empty(0, dtype=dtype))
        self._others: list[_Object] = []

    def known(self, name: str) -> Any:
        """As for values; anything else is an object of which no more than its parts is known."""
        return super().known(name) or self._other

    def fill(self, made: Any, state: Any) -> None:
        """The state is one of the parts."""
        if type(made) is _Object:
            made.parts.append(state)
        else:
            super().fill(made, state)

    def walked(self, value: Any) -> Any:
        """Who makes these objects walks the parts of each, but not into an object that is a part.

        So objects that know who holds them are no fault, nor are long chains of them.
        """
        return [value, *(one.parts for one in self._others)]

    def _other(self, *parts: Any) -> _Object:
        self._others.append(_Object(*parts))
        return self._others[-1]

    def _view(
        self, stored: Any, dtype: torch.dtype, offset: Any, size: Any, stride: Any, rest: Any
    ) -> torch.Tensor:
        return torch.empty(0, dtype=dtype)


class _Object:
    """Stands for an object of any class."""

    def __init__(self, *parts: Any) -> None:
        self.parts: list[Any] = [*parts]


class _Stored:
    """A storage that a pickle speaks of; `count` elements of `dtype` in the record of `key`."""

    __slots__ = ("count", "dtype", "key")

    def __init__(self, dtype: torch.dtype, key: str, count: int) -> None:
        self.dtype, self.key, self.count = dtype, key, count


def _parameter(data: torch.Tensor, requires_grad: bool, _hooks: Any) -> torch.nn.Parameter:
    return torch.nn.Parameter(data, requires_grad=requires_grad is True)


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding != "latin1":
        raise ValueError("it asks for an encoding other than latin1, or of something else than text")
    return text.encode("latin1")


def _bytearray(content: Any = b"", *encoding: Any) -> bytearray:
    """How a pickle of protocol 2 writes one: of text in latin-1, or of bytes; never of a mere size."""
    if not isinstance(content, str | bytes) or encoding not in ((), ("latin-1",)):
        raise ValueError("it asks for memory without content")
    return bytearray(content, *encoding) if isinstance(content, str) else bytearray(content)


_BUILTINS = ("builtins", "__builtin__")  # the latter in pickles of protocol 2
_NAMES: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage.UntypedStorage": torch.uint8,
    "torch.UntypedStorage": torch.uint8,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "_codecs.encode": _encoded,
    **{f"{module}.set": set for module in _BUILTINS},
    **{f"{module}.complex": complex for module in _BUILTINS},
    **{f"{module}.bytearray": _bytearray for module in _BUILTINS},
}
