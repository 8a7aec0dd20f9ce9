"""The list of a checkpoint's files with their sizes and digests, and the comparison with what is on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A file: its size, its sha256, and the rank that wrote it."""

    size: int
    sha256: str
    rank: int


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

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(record.size for record in self.files.values())

    def to_json(self) -> str:
        """The manifest as it lies on disk, with a digest of itself."""
        body = {"format": FORMAT, **asdict(self)}
        return json.dumps({**body, "sha256": _digest_of(body)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads a manifest.

        Raises:
            ValueError: it is damaged, or of another format.
        """
        try:
            body = json.loads(text)
            stated = body.pop("sha256")
            if stated != _digest_of(body):
                raise ValueError("it does not match its own digest")
            if body.pop("format") != FORMAT:
                raise ValueError("it is of another format")
            files = {name: Record(**record) for name, record in body.pop("files").items()}
            return cls(files=files, **body)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as e:
            raise ValueError("it cannot be read") from e


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is wrong with one file."""

    name: str
    found: str

    def __str__(self) -> str:
        return f"{self.name} {self.found}"


def record_of(path: Path, rank: int) -> Record:
    """Size and digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Record(size=file.tell(), sha256=digest, rank=rank)


def inspect(folder: Path, manifest: Manifest, names: Iterable[str] | None = None) -> list[Damage]:
    """Compares files (all where None) with the manifest, to the last bit."""
    chosen = manifest.files if names is None else names
    return [damage for name in chosen if (damage := _damage(folder / name, name, manifest.files[name]))]


def _damage(path: Path, name: str, expected: Record) -> Damage | None:
    try:
        size = path.stat().st_size
        if size != expected.size:
            return Damage(name=name, found=f"has {size} bytes, not {expected.size}")
        if record_of(path, expected.rank).sha256 != expected.sha256:
            return Damage(name=name, found="does not match its digest")
    except OSError as e:
        return Damage(
            name=name, found="is missing" if isinstance(e, FileNotFoundError) else f"cannot be read: {e}"
        )
    return None


def _digest_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
