"""Lets a running node stay what it is while its disks are cleaned: its identity moves to memory.

    live_view.py begin   shows the system disk alone at ROOT, and puts copies in memory over what sshd and
                         systemd still need, so that the node goes on answering under its old keys
    live_view.py end     puts back on the disks what image_tree.py kept, and takes the copies away

Both can be run again. After `begin` and a reboot instead of `end`, the node is a new machine.
Standard library only.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from contextlib import suppress

PLACE = "/run/clusterwright/image"
ROOT, MEMORY, KEPT = f"{PLACE}/root", f"{PLACE}/memory", f"{PLACE}/kept.tar"
# Where what could not be put back lies, readable for root alone.
LEFT = "/var/lib/clusterwright/not_put_back.tar"
# What goes on being written or read while the disks are copied. A file with something mounted on it cannot be
# removed from below, only emptied: machine-id is the one file.
USED = ("/etc/ssh", "/root/.ssh", "/home/*/.ssh", "/etc/machine-id")
WRITTEN = ("/var/log", "/var/tmp", "/tmp")
TREE = 'cd "$1" && find . -xdev -type d -print0 | tar -c --null --no-recursion -T - | tar -xp -C "$2"'


def run(*words: str, check: bool = True) -> None:
    subprocess.run(words, check=check)


def mounted(path: str) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        return any(line.split()[4] == path for line in lines)


def copy_of_file(path: str) -> str:
    copy = MEMORY + path
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    run("cp", "--archive", "--no-target-directory", path, copy)
    return copy


def folders_of(path: str) -> str:
    """The folders below a path without their files: daemons do not make their own log folder anew."""
    copy = MEMORY + path
    os.makedirs(copy, exist_ok=True)
    run("sh", "-c", TREE, "folders", path, copy)
    return copy


def begin() -> None:
    os.makedirs(ROOT, mode=0o700, exist_ok=True)
    if not mounted(ROOT):
        run("mount", "--bind", "/", ROOT)
        run("mount", "--make-private", ROOT)
    run("journalctl", "--relinquish-var", check=False)
    for pattern, copied in [(path, copy_of_file) for path in USED] + [(path, folders_of) for path in WRITTEN]:
        for path in glob.glob(pattern):
            if not mounted(path) and not os.path.islink(path):
                run("mount", "--bind", copied(path), path)


def end() -> None:
    refused = put_all_back() if os.path.exists(KEPT) else []
    for name in ("image.json", "join.json"):
        remove(f"{ROOT if mounted(ROOT) else ''}/etc/clusterwright/{name}")
    for pattern in USED + WRITTEN:
        for path in glob.glob(pattern):
            if mounted(path) and os.path.exists(MEMORY + path):
                run("umount", "--lazy", path)
    run("journalctl", "--flush", check=False)
    if mounted(ROOT):
        run("umount", ROOT)
    if refused:
        os.replace(KEPT, LEFT)
        sys.exit(f"not put back, they stay in {LEFT}: {'; '.join(refused)}. Extract them from there by hand.")
    shutil.rmtree(PLACE, ignore_errors=True)


def put_all_back() -> list:
    """What could not be put back, each with the reason."""
    refused = []
    with tarfile.open(KEPT) as archive:
        for member in archive:
            try:
                put_back(archive, member)
            except OSError as error:
                refused.append(f"{member.name}: {error.strerror or error}")
    return refused


def put_back(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Into the disk's own view; what lies on the data disk through its mount."""
    top = "/" if member.name.startswith("data/") else ROOT
    folder, name = opened_folder(top, os.path.dirname(member.name)), os.path.basename(member.name)
    try:
        if member.issym():
            remove(name, folder)
            os.symlink(member.linkname, name, dir_fd=folder)
            os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
        elif member.isfile() or member.islnk():
            fill(folder, name, archive.extractfile(member), member)
    finally:
        os.close(folder)


def opened_folder(top: str, path: str) -> int:
    """A folder below `top`, made where it has gone; a user may have put a link in its place meanwhile."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    folder = os.open(top, flags)
    for name in path.split("/") if path else []:
        outer = folder
        try:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=outer)
            folder = os.open(name, flags | os.O_NOFOLLOW, dir_fd=outer)
        finally:
            os.close(outer)
    return folder


def fill(folder: int, name: str, source, member: tarfile.TarInfo) -> None:
    """In place: what something is mounted on, machine-id, cannot be replaced by renaming."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError("it was replaced meanwhile")
        os.ftruncate(descriptor, 0)
        os.fchown(descriptor, member.uid, member.gid)
        os.fchmod(descriptor, member.mode)
        shutil.copyfileobj(source, stream)
    os.utime(name, (member.mtime, member.mtime), dir_fd=folder, follow_symlinks=False)


def remove(path: str, folder=None) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path, dir_fd=folder)


if __name__ == "__main__":
    {"begin": begin, "end": end}[sys.argv[1]]()
