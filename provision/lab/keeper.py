"""The process that is a node, seen from this machine: holds the node's disks, boots it again on reboot.

`unshare` starts it as process 1 of a process, mount and network namespace of its own, so everything that it
makes (overlay, loop device, cable, the node's processes) is private to it and goes with it, even by SIGKILL.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.edges import process
from provision.errors import CommandFailed
from provision.lab import argv, disks
from provision.lab.cgroups import enter_cgroup
from provision.lab.observe import mounts_in

REBOOT = 133  # systemd-nspawn(1): --keep-unit and the node asked for a reboot
_TEN_YEARS = 10 * 365 * 86400.0
_CABLE_SECONDS = 60.0
# Only the part of /proc/sys that belongs to the node's own network namespace may be written to.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What a keeper is told."""

    folder: Path
    base: Path
    layer: list[Path]
    serial: str
    own_cgroup: bool


def main(words: Sequence[str]) -> int:
    """Runs the node until it powers off; returns systemd-nspawn's status."""
    node = _parse(words)
    if node.own_cgroup:
        enter_cgroup(f"{node.folder.parents[1].name}/{node.folder.name}")
    _run("mount", "-t", "tmpfs", "-o", "mode=0755,size=1m", "tmpfs", "/run")  # nspawn litters it when killed
    root = _mount_root(node)
    _let_go_of_other_labs(node.folder.parents[1])
    attached = [attach_disk(image) for image in disks.of(node.folder)]
    _wait_for_cable()
    return _boot_until_off(node, root, attached)


def _parse(words: Sequence[str]) -> Node:
    parser = argparse.ArgumentParser(description="Keeps one node of a lab.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--layer", type=Path, action="append", default=[])
    parser.add_argument("--serial", required=True)
    parser.add_argument("--own-cgroup", action="store_true")
    return Node(**vars(parser.parse_args(words)))


def _run(*words: str | Path) -> str:
    return process.run(words, timeout_seconds=60, env=_ENVIRONMENT).stdout.strip()


def _mount_root(node: Node) -> Path:
    """The image, a snapshot's layers, what the node writes; bind mounts keep odd characters out of options.

    `volatile` skips every fsync: dpkg and the boot wait for them for seconds on a busy disk. The kernel marks
    such a layer and refuses it the next time, in case this machine crashed; a lab takes that risk.
    Source: docs.kernel.org/filesystems/overlayfs.html
    """
    parts = Path("/run/lab")
    lowers = [*node.layer, node.base]
    names = [f"lower{index}" for index in range(len(lowers))]
    for name, source in zip((*names, "write"), (*lowers, node.folder), strict=True):
        (parts / name).mkdir(parents=True)
        _run("mount", "--bind", source, parts / name)
    shutil.rmtree(parts / "write" / "work" / "work" / "incompat", ignore_errors=True)
    root = parts / "root"
    root.mkdir()
    lower = ":".join(f"{parts}/{name}" for name in names)
    layers = f"lowerdir={lower},upperdir={parts}/write/upper,workdir={parts}/write/work"
    _run("mount", "-t", "overlay", "-o", f"volatile,{layers}", "overlay", root)
    return root


def _let_go_of_other_labs(folder: Path) -> None:
    """Drops our copies of what is mounted for others: their snapshots would be in use as long as we live."""
    for place in mounts_in(folder.parent, Path("/proc/self/mounts").read_text()):
        if not place.is_relative_to(folder):
            _run("umount", "--lazy", place)


def attach_disk(image: Path) -> str:
    """Makes a block device of a file; the kernel removes it when its last user ends, this process too."""
    # Past the host's page cache, or what a node writes is kept twice; XFS with shared blocks offers that with
    # sectors of 4096 bytes only, and a disk whose sectors change cannot be read any more.
    device = _run("losetup", "--find", "--show", "--direct-io=on", "--sector-size=512", image)
    os.open(device, os.O_RDWR)  # held until this process ends
    _run("losetup", "--detach", device)  # in use, so it goes with its last user (losetup(8))
    return device


def _wait_for_cable() -> None:
    deadline = time.monotonic() + _CABLE_SECONDS
    while '"operstate":"UP"' not in _eth0():
        if time.monotonic() > deadline:
            raise CommandFailed(
                "boot the node",
                found=f"nobody connected its cable within {_CABLE_SECONDS:.0f} s",
                fix="Run `provision lab up` again.",
            )
        time.sleep(0.02)


def _eth0() -> str:
    return process.run(
        ("ip", "-json", "link", "show", "dev", "eth0"), timeout_seconds=10, env=_ENVIRONMENT, check=False
    ).stdout


def _boot_until_off(node: Node, root: Path, attached: Sequence[str]) -> int:
    words = argv.nspawn(
        root=root,
        machine=f"{node.folder.parents[1].name}-{node.folder.name}",
        disks=attached,
        serial=node.serial,
    )
    status = REBOOT
    while status == REBOOT:
        status = boot(words, env=_ENVIRONMENT)
    return status


def boot(words: Sequence[str], *, env: Mapping[str, str]) -> int:
    """Runs the node once, its console on standard error; returns when it is off or wants to boot again."""
    return process.stream(
        words,
        timeout_seconds=_TEN_YEARS,
        env=env,
        on_line=_say,
    )


def _say(line: str) -> None:
    os.write(2, f"{line}\n".encode())


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
