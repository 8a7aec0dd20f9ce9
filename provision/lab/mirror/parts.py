"""The parts of a mirror: each is made once for each state of what it is made from, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

KEY_DIGITS = 16


class Kind(StrEnum):
    """Whether a part comes from where it is published or is made here in its place."""

    REAL = "real"
    STAND_IN = "stand-in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the mirror: where it lies, whether it is the real thing, and the seconds that making it took.

    `made` is None for a part that was there, 0.0 for one that is only to be made.
    """

    name: str
    key: str
    kind: Kind
    folder: Path
    made: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where parts are made and kept, and what their making may use.

    `check` makes nothing; `environment` is that of this process, for the programs that are called; `release`
    is that of the nodes, "" this machine's own.
    """

    root: Path
    environment: Mapping[str, str]
    report: Callable[[str], None]
    check: bool = False
    release: str = ""

    def place(self, name: str, key: str) -> Path:
        """Where the part of that key lies once it is made."""
        return self.root / "parts" / f"{name}-{key}"

    def ensure(self, name: str, key: str, *, kind: Kind, make: Callable[[Path], None]) -> Part:
        """The part of that key, made by `make` where it is not there.

        `make` fills a folder that is renamed when it is complete; after a kill the next run goes on in it.
        """
        folder = self.place(name, key)
        seconds = None if folder.exists() else 0.0
        if seconds is not None and not self.check:
            self.report(name)
            started = time.monotonic()
            partial = folder.with_name(f"{folder.name}.partial")
            partial.mkdir(parents=True, exist_ok=True)
            make(partial)
            partial.rename(folder)
            seconds = time.monotonic() - started
        return Part(name=name, key=key, kind=kind, folder=folder, made=seconds)


def key_of(*ingredients: object) -> str:
    """Names the state of what a part is made from: 16 hexadecimal digits."""
    text = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def sources_key(folder: Path) -> str:
    """Names the state of a folder of sources, by the paths and contents of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return key_of(
        [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    )


def prune(root: Path, keep: set[Path]) -> None:
    """Removes the parts and mirrors below `root` that are not in `keep`."""
    mirrors = [path for path in root.iterdir() if (path / "mirror.json").is_file() and not path.is_symlink()]
    for path in (*mirrors, *(root / "parts").iterdir()):
        if path not in keep:
            shutil.rmtree(path)
