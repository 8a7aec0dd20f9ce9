"""Gives a new lab what a snapshot holds. Every step may be cut off, and is done again by the next `up`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from provision.edges import process
from provision.errors import BadInput
from provision.lab import argv, disks, record, snapshot
from provision.lab.layout import Lab, LabNode

_COPY_SECONDS = 600.0
_FILE_SYSTEM_BYTES = 256 << 20  # a restored lab's logs and caches, before it has done anything


def is_mounted(lab: Lab) -> bool:
    """Whether the file system of its snapshot is where the lab expects it, or needs none."""
    found = snapshot.of(lab)
    if found is None or not found.image.exists():
        return True
    places = (lab.snapshot_mount, lab.nodes_folder)
    return all(map(os.path.ismount, places)) and bool(os.statvfs(places[0]).f_flag & os.ST_RDONLY)


def require(lab: Lab) -> None:
    """Raises:
    BadInput: what a lab's nodes stand on has gone, or the disk is too full to restore them.
    """
    found = snapshot.of(lab)
    if found is None:
        return
    asked = f"bring up lab {lab.name} from snapshot {found.name}"
    if not lab.base.exists():
        raise BadInput(
            asked,
            found=f"its nodes stand on the image {lab.base}, which has gone from the cache",
            fix=f"provision lab snapshot remove {found.name}; then make the lab anew and freeze it.",
        )
    if not lab.restored.exists():
        needed = _FILE_SYSTEM_BYTES if found.image.exists() else found.bytes_on_disk
        snapshot.require_space(found.folder, needed, asked=asked)


def mount(lab: Lab) -> None:
    """Mounts the snapshot's file system; what a command that was killed has mounted goes first."""
    found = snapshot.of(lab)
    assert found is not None
    for place in (lab.nodes_folder, lab.snapshot_mount):
        place.mkdir(parents=True, exist_ok=True)
        while os.path.ismount(place):
            process.run(("umount", place), timeout_seconds=30)
    for words in argv.mount_snapshot(lab, found.image):
        process.run(words, timeout_seconds=60)


def restore_files(lab: Lab) -> None:
    """Deletes what an earlier lab left with the snapshot, and brings keys, secrets and inventory back."""
    frozen = snapshot.frozen_files(lab)
    assert frozen is not None
    delete_nodes(lab.nodes_folder)
    for path in (frozen / "lab").iterdir():
        target = lab.folder / path.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        process.run(("cp", "--archive", "--remove-destination", path, target), timeout_seconds=30)
    record.write_file(lab.restored, "")


def delete_nodes(folder: Path) -> None:
    """Deletes all that nodes have written, but not the folder: a file system may be mounted there."""
    for path in folder.glob("*"):
        shutil.rmtree(path)


def restore_node(lab: Lab, node: LabNode, partial: Path, *, report: Callable[[str], None]) -> bool:
    """Fills `partial` with what the snapshot has of a node; False when it has nothing."""
    frozen = snapshot.frozen_files(lab)
    source = frozen / "nodes" / node.name if frozen else None
    if source is None or not source.exists():
        return False
    for path in source.iterdir():
        if path.suffix == ".json":
            process.run(("cp", "--archive", path, partial / path.name), timeout_seconds=30)
        if path.suffix == ".img" and not disks.clone(path, partial / path.name):
            report(f"copy {path.name} of {node.name}: this machine's file system cannot share blocks")
    if (partial / node.faults.name).exists():
        (partial / node.unstruck.name).touch()
    return True
