"""Snapshots of labs: what is kept of one, where it lies, which labs stand on it."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from provision.edges import process
from provision.errors import BadInput
from provision.lab import disks, record
from provision.lab.layout import STATE_ROOT, Lab, LabNode
from provision.lab.lock import hold as hold_lock

SNAPSHOT_ROOT = STATE_ROOT.parent / "snapshots"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A lab as it was when it was frozen.

    Its folder has snapshot.json and either `files.xfs`, a file system of its own in which the disks of nodes
    share their blocks, or the folder `files`.
    """

    name: str
    folder: Path
    lab: Lab
    made: str  # when, as ISO 8601 has it

    @property
    def image(self) -> Path:
        return self.folder / "files.xfs"

    @property
    def bytes_on_disk(self) -> int:
        """What it takes of this machine's disk now, with what a lab that stands on it has written."""
        return sum(disk_bytes(path) for path in self.folder.rglob("*") if not path.is_symlink())


def disk_bytes(path: Path) -> int:
    """What a file takes of the disk, holes left out."""
    return path.lstat().st_blocks * 512


def folder_of(name: str, root: Path = SNAPSHOT_ROOT) -> Path:
    """The folder of the snapshot called `name`.

    Raises:
        BadInput: none can have that name.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"call a snapshot {name!r}",
            found="a name has 1 to 32 small letters, digits, - and _, of which the first is no sign",
            fix="Choose another name.",
        )
    return root / name


def half_of(lab_name: str, root: Path = SNAPSHOT_ROOT) -> Path:
    """Where a snapshot of a lab is made: nothing uses it before it is complete and has its name."""
    return root / f".{lab_name}.partial"


def save(folder: Path, lab: Lab, *, made: str) -> None:
    """Writes the record of the snapshot in `folder`."""
    text = json.dumps({"made": made, "lab": record.as_data(lab)}, indent=2) + "\n"
    record.write_file(folder / "snapshot.json", text, mode=0o600)


def load(name: str, root: Path = SNAPSHOT_ROOT) -> Snapshot:
    """The snapshot called `name`.

    Raises:
        BadInput: there is none, or its record is damaged.
    """
    folder = folder_of(name, root)
    place = folder / "snapshot.json"
    try:
        found = json.loads(place.read_text())
        lab = record.from_data(found["lab"], root.parent / STATE_ROOT.name / found["lab"]["name"])
        return Snapshot(name=name, folder=folder, lab=lab, made=found["made"])
    except FileNotFoundError as e:
        there = ", ".join(names(root))
        raise BadInput(
            f"find snapshot {name}",
            found=f"there are {there}" if there else "there is none on this machine",
            fix=f"Make it from a lab: provision lab freeze {name}",
        ) from e
    except (ValueError, KeyError, TypeError) as e:
        raise BadInput(
            f"read {place}",
            found=f"it is damaged: {e!r}",
            fix=f"Remove it: provision lab snapshot remove {name}",
        ) from e


def names(root: Path = SNAPSHOT_ROOT) -> list[str]:
    """The names of all complete snapshots."""
    return sorted(path.name for path in root.glob("*") if _NAME.fullmatch(path.name))


@contextmanager
def held(name: str) -> Iterator[None]:
    """Holds the snapshot called `name`, so that nobody removes or makes it meanwhile.

    Raises:
        Busy: another command has it.
    """
    with hold_lock(f"snapshot {name}"):
        yield


def users(name: str, labs: Path = STATE_ROOT) -> list[str]:
    """The labs that stand on a snapshot."""
    found = [record.load(path) for path in sorted(labs.glob("*"))]
    return [lab.name for lab in found if lab and lab.snapshot == name]


def remove(name: str, root: Path = SNAPSHOT_ROOT, labs: Path = STATE_ROOT) -> None:
    """Deletes a snapshot, a damaged one too.

    Raises:
        BadInput: there is none, or a lab stands on it.
    """
    folder = folder_of(name, root)
    if not folder.exists():
        load(name, root)
    if standing := users(name, labs):
        raise BadInput(
            f"remove snapshot {name}",
            found=f"lab {standing[0]} stands on it",
            fix=f"Take it down first: provision lab down --name {standing[0]}",
        )
    doomed = root / f".{name}.deleted"
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)
    remove_if_empty(root)


def remove_if_empty(root: Path = SNAPSHOT_ROOT) -> None:
    """Removes the folder of all snapshots, and the one around it, when nothing is left there."""
    for folder in (root, root.parent):
        with suppress(OSError):  # something else lives there
            folder.rmdir()


def of(lab: Lab) -> Snapshot | None:
    """What a lab stands on.

    Raises:
        BadInput: it has gone.
    """
    if lab.snapshot is None:
        return None
    root = lab.folder.parent.parent / SNAPSHOT_ROOT.name
    if not folder_of(lab.snapshot, root).exists():
        raise BadInput(
            f"work on lab {lab.name}",
            found=f"the snapshot {lab.snapshot}, on which it stands, has gone",
            fix=f"Take it down: provision lab down --name {lab.name}",
        )
    return load(lab.snapshot, root)


def frozen_files(lab: Lab) -> Path | None:
    """Where the frozen files of a lab's snapshot are, once it is mounted."""
    found = of(lab)
    if found is None:
        return None
    return (lab.snapshot_mount if found.image.exists() else found.folder / "files") / "frozen"


def layers_of(lab: Lab, node: LabNode) -> Sequence[Path]:
    """What lies between the base image and what a node writes, the youngest layer first."""
    frozen = frozen_files(lab)
    layers = frozen / "nodes" / node.name / "layers" if frozen else None
    return sorted(layers.glob("*"), key=lambda path: int(path.name), reverse=True) if layers else []


def shares_blocks(folder: Path) -> bool:
    """Whether files in `folder` can share their blocks."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source = Path(place) / "source"
        source.write_bytes(bytes(4096))
        return disks.clone(source, Path(place) / "target")


def has_xfs() -> bool:
    """Whether this machine's kernel has XFS, or a module of it."""
    if shutil.which("modprobe") is not None:  # a container has none
        process.run(("modprobe", "--quiet", "xfs"), timeout_seconds=10, check=False)
    return "xfs" in Path("/proc/filesystems").read_text().split()


def require_space(place: Path, needed: int, *, asked: str) -> None:
    """Raises:
    BadInput: the disk of the folder `place` has less than `needed` bytes.
    """
    free = shutil.disk_usage(place).free
    if free < needed:
        raise BadInput(
            asked,
            found=f"it needs {in_gib(needed)} of the disk at {place}, which has {in_gib(free)} left",
            fix="Make room there; `provision lab snapshot list` shows what snapshots take.",
        )


def in_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
