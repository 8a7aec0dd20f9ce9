"""A folder of checkpoints on one disk, kept and looked after without torch; changes survive a crash."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BadInput, CheckpointFailed
from runtime.train.checkpoint.listing import METADATA, read_table
from runtime.train.checkpoint.manifest import LIMIT_BYTES, MANIFEST, Manifest, inspect, word
from runtime.untrusted.documents import mapping, parse
from runtime.untrusted.files import check_name, read_plain

LATEST, OWNER = "latest", "owner.json"
_NAME_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A committed checkpoint; `manifest` is None where it cannot be trusted, and `fault` says why."""

    tag: str
    path: Path
    manifest: Manifest | None
    fault: str = ""


def check_tag(tag: str) -> str:
    """The tag, if it can be the name of a folder.

    Raises:
        BadInput: it cannot.
    """
    try:
        return _tag(tag)
    except ValueError as e:
        raise BadInput(
            f"save or load a checkpoint with the tag {tag[:80]!r}",
            found="a tag is the name of a folder",
            fix="Use letters, digits, points, dashes and underscores.",
        ) from e


def entries(root: Path) -> list[Entry]:
    """Committed checkpoints, the newest step first; those whose manifest is damaged come last."""
    found = [_entry(path) for path in _folders(root) if os.path.lexists(path / MANIFEST)]
    return sorted(found, key=_age, reverse=True)


def heard(root: Path, tag: str, text: str) -> Entry:
    """An entry as another rank told of it: trusted no more than what lies on a disk."""
    try:
        return Entry(tag=tag, path=root / check_name(tag), manifest=Manifest.from_json(text))
    except ValueError as e:
        return Entry(tag=tag, path=root, manifest=None, fault=f"{MANIFEST}: {e}")


def partial_name(tag: str, run: str, session: str) -> str:
    """The folder in which a checkpoint is written before it is committed."""
    return f".{tag}.{run}-{session}.partial"


def leftovers(root: Path, run: str) -> list[Path]:
    """Folders that earlier sessions of a run left when they died in a save."""
    return sorted(path for path in root.glob(f".*.{run}-*.partial") if not path.is_symlink())


def read_latest(root: Path) -> str | None:
    """The tag that `latest` names; None where there is no such file, or an empty one.

    Raises:
        CheckpointFailed: it names what is not in this folder, or is no file.
    """
    path = root / LATEST
    try:
        named = read_plain(path, _NAME_BYTES).decode("ascii").strip()
        return _tag(named) if named else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as e:
        raise CheckpointFailed(
            f"read which checkpoint {path} names",
            found=(e.strerror or str(e)) if isinstance(e, OSError) else str(e),
            fix=f"Write the tag of a checkpoint in {root} into it, or remove it to take the newest.",
        ) from e


def write_latest(root: Path, tag: str) -> None:
    """Points `latest` at a committed checkpoint."""
    write_atomically(root / LATEST, tag.encode())


def claim(root: Path, run: str) -> str:
    """The run that owns the folder: this one, if no other has claimed it before."""
    root.mkdir(parents=True, exist_ok=True)
    ours = root / f".{OWNER}.{run}.tmp"
    write_atomically(ours, json.dumps({"run": run}).encode())
    try:
        os.link(ours, root / OWNER)  # fails if it is there, and is never seen half written
    except FileExistsError:
        return read_owner(root) or run
    finally:
        ours.unlink(missing_ok=True)
    return run


def read_owner(root: Path) -> str | None:
    """The run that saves into the folder; None where nobody does or the file is damaged."""
    try:
        return word(mapping(parse(read_plain(root / OWNER, _NAME_BYTES)), "it", ("run",))["run"], "its run")
    except (OSError, ValueError):
        return None


def free_name(root: Path, tag: str) -> str:
    """The tag, or the first of tag.2, tag.3, ... that no checkpoint has: nothing is ever overwritten."""
    number = 1
    while (root / _numbered(tag, number)).exists():
        number += 1
    return _numbered(tag, number)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves the old one or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:  # never through a link that was put there
        file.write(content)
        _flush(file.fileno())
    partial.rename(path)
    sync_folder(path.parent)


def commit(partial: Path, final: Path) -> None:
    """Gives a whole checkpoint its name."""
    sync_folder(partial)
    partial.rename(final)
    sync_folder(final.parent)


def sync_folder(path: Path) -> None:
    """Makes names in a folder survive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a checkpoint; without its manifest first, so that a half-removed one is not taken for whole.

    Raises:
        OSError: it is a link, and what it leads to is not ours.
    """
    if path.is_symlink():
        raise OSError(errno.ENOTDIR, "it is a link, not a folder", str(path))
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def to_prune(
    found: Sequence[Entry],
    *,
    keep_last: int | None,
    keep_every: int | None,
    spare: Collection[str | None] = (),
) -> list[Entry]:
    """What may go: all but the newest `keep_last`, those of steps divisible by `keep_every`, and `spare`.

    Tags are spared because someone who turned `latest` back saves earlier steps than those that are there.
    Damaged entries are neither counted nor removed: they may be all that is left of something.
    """
    if keep_last is None:
        return []
    good = [entry for entry in found if entry.manifest is not None]
    return [e for e in good[keep_last:] if e.tag not in spare and not _is_kept(e, keep_every)]


def _is_kept(entry: Entry, every: int | None) -> bool:
    return every is not None and entry.manifest is not None and entry.manifest.step % every == 0


def _tag(name: str) -> str:
    if name in (LATEST, OWNER):
        raise ValueError(f"{name} is not a tag")
    return word(name, "the tag")


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    found = (path for path in root.iterdir() if not path.name.startswith(".") and path.name.isprintable())
    return [path for path in found if path.is_dir()]


def _entry(path: Path) -> Entry:
    try:
        if path.is_symlink():
            return Entry(tag=path.name, path=path, manifest=None, fault="it is a link, not a folder")
        manifest = Manifest.from_json(read_plain(path / MANIFEST, LIMIT_BYTES))
    except OSError as e:
        return Entry(tag=path.name, path=path, manifest=None, fault=f"{MANIFEST}: {e.strerror or e}")
    except ValueError as e:
        return Entry(tag=path.name, path=path, manifest=None, fault=f"{MANIFEST}: {e}")
    return Entry(tag=path.name, path=path, manifest=manifest)


def _age(entry: Entry) -> tuple[int, float]:
    return (entry.manifest.step, entry.manifest.saved_at) if entry.manifest else (-1, 0.0)


def _numbered(tag: str, number: int) -> str:
    return tag if number == 1 else f"{tag}.{number}"


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)


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
