"""Files of a few bytes that say they are terabytes: no memory is reserved for what they say."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import BadInput
from runtime.train.checkpoint.archive import check_archive, read_archive
from runtime.train.checkpoint.table import limit_for
from runtime.train.weights.files import INDEX, open_weights
from tests.conftest import RecordRefusal

HOLE = 2**42
UNKNOWN = 2**32 - 1  # the size is in what follows
NAME = b"a/data.pkl"


def directory(size: int) -> bytes:
    """The list of one record of so many bytes."""
    longer = struct.pack("<HHQQ", 1, 16, size, size)
    at = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        *(b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, UNKNOWN, UNKNOWN, len(NAME), len(longer), 0, 0, 0, 0, 0),
    )
    return at + NAME + longer


def archive(path: Path, record: int, listed: bytes, listed_bytes: int) -> Path:
    """A zip file whose record, or whose list of records, is a hole."""
    with path.open("wb") as file:
        head = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, 0, 0, 0, 0, 0, UNKNOWN, UNKNOWN, len(NAME), 0)
        file.write(head + NAME)
        start = file.tell() + record
        file.seek(start)
        file.write(listed)
        file.seek(start + listed_bytes)
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, listed_bytes, start))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, start + listed_bytes, 1))
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, UNKNOWN, UNKNOWN, 0))
    return path


@pytest.mark.attack("file")
@pytest.mark.parametrize("read", [read_archive, check_archive])
@pytest.mark.parametrize("part", ["pickle", "list of records"])
def test_an_archive_of_holes_is_refused(
    tmp_path: Path, read: Callable[[Path], object], part: str, record_refusal: RecordRefusal
) -> None:
    listed = directory(HOLE)
    if part == "pickle":
        path = archive(tmp_path / "a.pt", HOLE, listed, len(listed))
    else:
        path = archive(tmp_path / "a.pt", 0, b"", HOLE)

    with pytest.raises(
        ValueError, match=f"it asks for {HOLE} bytes at once, and at most 268435456"
    ) as refusal:
        read(path)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
def test_a_header_of_holes_is_refused(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write((HOLE // 64).to_bytes(8, "little"))
        file.truncate(HOLE)

    with pytest.raises(BadInput, match="is more than 100000000 bytes") as refusal:
        open_weights(tmp_path)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
def test_an_index_of_holes_is_refused(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    for name, size in (("model.safetensors", HOLE), (INDEX, HOLE // 64)):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)

    with pytest.raises(BadInput, match="and at most 100000000 are read") as refusal:
        open_weights(tmp_path)
    record_refusal(refusal.value)


def test_a_list_of_shards_is_bounded_however_large_they_say_they_are() -> None:
    assert limit_for(2**30) == 2**27
    assert limit_for(HOLE) == 2**30


def test_a_header_may_be_larger_than_a_mebibyte_where_the_weights_are_large(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"of": "x" * 2**21},
        "w": {"dtype": "U8", "shape": [2**27], "data_offsets": [0, 2**27]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(tmp_path / "model.safetensors", 8 + len(text) + 2**27)

    assert list(open_weights(tmp_path)) == ["w"]
