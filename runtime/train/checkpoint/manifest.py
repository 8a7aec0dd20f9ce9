"""The list of a checkpoint's files with their sizes and digests, and the comparison with what is on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from runtime.untrusted.documents import mapping, number, parse, text, whole
from runtime.untrusted.files import check_name, open_plain

FORMAT, FORMATS = 2, (1, 2)  # in 1 the shards were listed in a pickle
MANIFEST = "manifest.json"
LIMIT_BYTES = 3 * 512 * 1024  # more than 8,000 files
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]{0,199}")
_LAST_SECOND = 253402300799.0  # of the year 9999
_KEYS = ("format", "tag", "run", "step", "stage", "world_size", "saved_at", "files", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A file: its size, its sha256, and the rank that wrote it."""

    size: int
    sha256: str
    rank: int

    @classmethod
    def from_values(cls, values: Any) -> Record:
        """Reads what `asdict` made of a record.

        Raises:
            ValueError: it is none.
        """
        fields = mapping(values, "a file's record", ("size", "sha256", "rank"))
        return cls(
            size=whole(fields["size"], "a file's size"),
            sha256=text(fields["sha256"], "a digest", most=64),
            rank=whole(fields["rank"], "a rank"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a checkpoint consists of. `saved_at` is in seconds since 1970, by the first rank's clock."""

    tag: str
    run: str
    step: int
    stage: int
    world_size: int
    saved_at: float
    files: Mapping[str, Record]
    format: int = FORMAT

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())

    def to_json(self) -> str:
        """The manifest as it lies on disk, with a digest of itself."""
        body = asdict(self)
        return json.dumps({**body, "sha256": _digest_of(body)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, content: str | bytes) -> Manifest:
        """Reads a manifest.

        Raises:
            ValueError: it is damaged, of another format, or names what is not in the checkpoint's folder.
        """
        written = content.encode("utf-8", "replace") if isinstance(content, str) else content
        body = mapping(parse(written, limit_bytes=LIMIT_BYTES), "it", _KEYS)
        if body.pop("sha256") != _digest_of(body):
            raise ValueError("it does not match its own digest")
        if body["format"] not in FORMATS:
            raise ValueError("it is of another format")
        return cls(
            tag=word(body["tag"], "its tag"),
            run=word(body["run"], "its run"),
            step=whole(body["step"], "its step"),
            stage=whole(body["stage"], "its stage", high=3),
            world_size=whole(body["world_size"], "its number of ranks", low=1, high=2**24),
            saved_at=number(body["saved_at"], "its time", low=0.0, high=_LAST_SECOND),
            files=records_from(body["files"]),
            format=body["format"],
        )


def records_from(values: Any) -> dict[str, Record]:
    """Records of files by name.

    Raises:
        ValueError: one is none, or a name is not that of a file in the checkpoint's folder.
    """
    found = mapping(values, "its list of files")
    if MANIFEST in found:
        raise ValueError(f"it lists {MANIFEST} itself")
    return {check_name(name): Record.from_values(record) for name, record in found.items()}


def word(value: Any, what: str) -> str:
    """A tag or a run, either of which becomes a part of a file's name.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError(f"{what} is {str(value)[:80]!r}, which cannot be a part of a file's name")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is wrong with one file."""

    name: str
    found: str

    def __str__(self) -> str:
        return f"{self.name} {self.found}"


def record_of(path: Path, rank: int) -> Record:
    """Size and digest of a file.

    Raises:
        OSError: it cannot be read, or is none (a link, a pipe).
    """
    with open_plain(path) as file:
        return _record(file, rank)


def inspect(folder: Path, manifest: Manifest, names: Iterable[str] | None = None) -> list[Damage]:
    """Compares files (all where None) with the manifest, to the last bit."""
    chosen = manifest.files if names is None else names
    return [damage for name in chosen if (damage := _damage(folder / name, name, manifest.files[name]))]


def _damage(path: Path, name: str, expected: Record) -> Damage | None:
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected.size:
                return Damage(name=name, found=f"has {size} bytes, not {expected.size}")
            if _record(file, expected.rank).sha256 != expected.sha256:
                return Damage(name=name, found="does not match its digest")
    except FileNotFoundError:
        return Damage(name=name, found="is missing")
    except OSError as e:
        return Damage(name=name, found=f"cannot be read: {e.strerror or e}")
    return None


def _record(file: BufferedReader, rank: int) -> Record:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Record(size=file.tell(), sha256=digest, rank=rank)


def _digest_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
