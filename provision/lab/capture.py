"""Copies a lab whose nodes are off. It has a mount namespace of its own, which goes with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from provision.edges import process
from provision.lab import disks, record, snapshot
from provision.lab.layout import Lab, LabNode

_COPY_SECONDS = 1800.0
# What is the lab's own, is made anew, or belongs to connections that end here.
_LEFT_OUT = {"nodes", "snapshot", "restored", "lab.json", "connections", "file_server.log"}


def main(words: Sequence[str]) -> None:
    """Writes `frozen`, and in a file system of its own beside it `live`, for what nodes will write."""
    parser = argparse.ArgumentParser(description="Copies a lab.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--file-system-bytes", type=int)
    asked = parser.parse_args(words)
    lab, target = record.load(asked.folder), asked.target
    assert lab is not None
    files = target / "files"
    files.mkdir(mode=0o700)
    if asked.file_system_bytes is None:
        _copy(lab, files / "frozen")
        return
    _say("make file system")
    _make_file_system(target / "files.xfs", asked.file_system_bytes, mounted=files)
    (files / "live").mkdir()
    _copy(lab, files / "frozen")
    _say("write to disk")
    _run("umount", files)  # which waits until the file has it all
    files.rmdir()


def _say(step: str) -> None:
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


def _run(*words: str | Path) -> None:
    process.run(words, timeout_seconds=_COPY_SECONDS)


def _make_file_system(image: Path, size: int, *, mounted: Path) -> None:
    image.touch(mode=0o600)
    with image.open("ab") as file:
        file.truncate(size)
    _run("mkfs.xfs", "-q", "-K", "-m", "reflink=1", image)
    _run("mount", "-t", "xfs", "-o", "loop,noatime", image, mounted)


def _copy(lab: Lab, frozen: Path) -> None:
    for folder in (frozen, frozen / "lab", frozen / "nodes"):
        folder.mkdir(mode=0o700)
    _say("copy keys and secrets")
    for path in lab.folder.iterdir():
        if path.name not in _LEFT_OUT:
            _run("cp", "--archive", path, frozen / "lab" / path.name)
    for node in lab.nodes:
        _say(f"copy {node.name}")
        _copy_node(lab, node, frozen / "nodes" / node.name)


def _copy_node(lab: Lab, node: LabNode, target: Path) -> None:
    """What it wrote becomes one more layer over those that it stands on itself."""
    for folder in (target, target / "layers"):
        folder.mkdir(mode=0o700)
    layers = [*reversed(snapshot.layers_of(lab, node)), node.upper]
    for index, layer in enumerate(layers):
        _run("cp", "--archive", layer, target / "layers" / str(index))
    for path in (node.disks, node.shape, node.faults):
        if path.exists():
            _run("cp", "--archive", path, target / path.name)
    for disk in disks.of(node.folder):
        disks.clone(disk, target / disk.name)


if __name__ == "__main__":
    main(sys.argv[1:])
