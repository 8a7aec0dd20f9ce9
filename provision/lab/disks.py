"""The disks of a node: which it has, in which order, and what is on them before it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from provision.edges import process
from provision.lab.layout import Lab, LabNode
from provision.lab.record import write_file

_COPY_SECONDS = 600.0


class Kind(StrEnum):
    """own: the node's data disk. copy: what is on it now, once more. blank: nothing."""

    own = "own"
    copy = "copy"
    blank = "blank"


_FILES = {Kind.own: "disk.img", Kind.copy: "copy.img", Kind.blank: "blank.img"}


def make(path: Path, *, size: int, content: Path | None = None) -> None:
    """A disk of at least `size` bytes: a copy of `content`, or blank."""
    if content is not None:
        clone(content, path)
    with path.open("ab") as disk:
        disk.truncate(max(size, path.stat().st_size))


def clone(source: Path, target: Path) -> bool:
    """Gives `target` the blocks of `source`, or a copy where they cannot be shared; whether they are."""
    shared = process.run(
        ("cp", "--reflink=always", source, target), timeout_seconds=_COPY_SECONDS, check=False
    )
    if shared.returncode != 0:
        words = ("cp", "--reflink=never", "--sparse=always", source, target)
        process.run(words, timeout_seconds=_COPY_SECONDS)
    return shared.returncode == 0


def choose(lab: Lab, node: LabNode, kinds: Sequence[Kind], *, own_bytes: int | None = None) -> None:
    """Says which disks a node that is off has from its next start on, as vdb, vdc ...; none without any.

    Args:
        own_bytes: the size to which its own disk grows.
    """
    if own_bytes is not None:
        make(node.disk, size=own_bytes)
    for kind in {*kinds} - {Kind.own}:
        path = node.folder / _FILES[kind]
        path.unlink(missing_ok=True)
        make(path, size=lab.disk_bytes, content=node.disk if kind is Kind.copy else None)
    write_file(node.disks, json.dumps([_FILES[kind] for kind in kinds]) + "\n")


def of(folder: Path) -> list[Path]:
    """The files behind the disks of the node in `folder`, in order."""
    try:
        names = json.loads((folder / "disks.json").read_text())
    except FileNotFoundError:
        names = [_FILES[Kind.own]]
    return [folder / name for name in names]
