"""Looking after checkpoints without a job: verify, list, prune. Neither torch nor other ranks are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BadInput
from runtime.train.checkpoint.folder import Entry, entries, read_latest, remove, to_prune
from runtime.train.checkpoint.listing import METADATA, read_table
from runtime.train.checkpoint.manifest import MANIFEST, Manifest, inspect


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a checkpoint is whole on this disk; `faults` says what is not."""

    tag: str
    step: int | None
    ranks: int | None
    size: int
    saved_at: float
    is_latest: bool
    faults: tuple[str, ...]


def find(path: Path) -> list[Entry]:
    """The checkpoints of a folder, newest first, or the one that the path itself is.

    Raises:
        BadInput: there is none.
    """
    if os.path.lexists(path / MANIFEST):
        whole = path.resolve()  # whoever names a link means what it leads to
        return [entry for entry in entries(whole.parent) if entry.path == whole]
    found = entries(path)
    if not found:
        raise BadInput(
            f"look after the checkpoints in {path}",
            found="no folder with a manifest.json is there",
            fix="Give the folder that was passed to save_checkpoint, or one checkpoint in it.",
        )
    return found


def verify(found: Sequence[Entry], *, read: bool = True) -> Iterator[Verdict]:
    """A verdict on each checkpoint as soon as it is known; without `read` on its manifest only."""
    for entry in found:
        manifest = entry.manifest
        faults = _faults(entry, manifest) if manifest is not None and read else []
        yield Verdict(
            tag=entry.tag,
            step=manifest.step if manifest else None,
            ranks=manifest.world_size if manifest else None,
            size=manifest.total_bytes if manifest else 0,
            saved_at=manifest.saved_at if manifest else 0.0,
            is_latest=read_latest(entry.path.parent) == entry.tag,
            faults=(entry.fault,) if entry.fault else tuple(faults),
        )


def _faults(entry: Entry, manifest: Manifest) -> list[str]:
    """Damaged files, or what a load would refuse in the list of shards."""
    damages = [str(damage) for damage in inspect(entry.path, manifest)]
    if damages or METADATA not in manifest.files:
        return damages
    try:
        read_table(entry.path, manifest)
    except (OSError, ValueError) as e:
        return [str(e)]
    return []


def plan_prune(root: Path, *, keep_last: int, keep_every: int | None) -> list[Entry]:
    """What `prune` would remove: never the one that `latest` names, never a damaged one."""
    return to_prune(find(root), keep_last=keep_last, keep_every=keep_every, spare=[read_latest(root)])


def prune(going: Sequence[Entry]) -> None:
    """Removes checkpoints."""
    for entry in going:
        remove(entry.path)
