"""Lets a running node stay what it is while its disks are cleaned: its identity moves to memory.

    live_view.py begin   shows the system disk alone at ROOT, and puts copies in memory over what sshd and
                         systemd still need, so that the node goes on answering under its old keys
    live_view.py end     puts back on the disks what image_tree.py kept, and takes the copies away

Both can be run again. After `begin` and a reboot instead of `end`, the node is a new machine.
Users may change their folders meanwhile: what is copied, covered and uncovered is what was opened, not what
its name leads to by then. Runs as one text with image_keep.py and node_place.py; otherwise standard
library only.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from image_keep import COVERED_HOMES, opened_folder
from node_place import Place, Refused

PLACE = "/run/clusterwright/image"
ROOT, MEMORY, KEPT = f"{PLACE}/root", f"{PLACE}/memory", f"{PLACE}/kept.tar"
# Where what could not be put back lies, readable for root alone.
LEFT = "/var/lib/clusterwright/not_put_back.tar"
# What goes on being written or read while the disks are copied. A file with something mounted on it cannot be
# removed from below, only emptied: machine-id is the one file.
USED = ("/etc/ssh", *(f"/{home}/.ssh" for home in COVERED_HOMES), "/etc/machine-id")
WRITTEN = ("/var/log", "/var/tmp", "/tmp")
DEEPEST = 40  # folders in folders; what a user nests deeper is not copied
MS_BIND, MNT_DETACH = 4096, 2  # mount(2), umount(2)
C = ctypes.CDLL(None, use_errno=True)


def run(*words: str, check: bool = True) -> None:
    subprocess.run(words, check=check)


def mounted(path: str) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return any(line.split()[4] == path for line in lines)


def call(path: str, function: Callable[..., int], *words: object) -> None:
    if function(*words) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def cover(copy: str, target: int) -> None:
    """Not by mount(8), which works out a path again from what was opened."""
    call(copy, C.mount, copy.encode(), b"/proc/self/fd/%d" % target, None, ctypes.c_ulong(MS_BIND), None)


def uncover(target: int) -> None:
    call(MEMORY, C.umount2, b"/proc/self/fd/%d" % target, MNT_DETACH)


@contextmanager
def opened(path: str) -> Iterator[tuple[int, str]]:
    """A file or folder, opened without leave to read it, and its path without links."""
    with Place(path) as place:
        if place.missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        target = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder)
        try:
            yield target, place.path
        finally:
            os.close(target)


def is_copy(target: int, path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(target), os.stat(MEMORY + path))
    return False


def move_to_memory(path: str, *, with_files: bool) -> None:
    with opened(path) as (target, place):
        if mounted(place):
            return
        cover(copied(target, place, with_files=with_files), target)
    with opened(path) as (target, place):
        if not is_copy(target, place):
            raise Refused(path, "was moved while it was copied", "Run image.yml again.")


def copied(source: int, path: str, *, with_files: bool) -> str:
    """A copy in memory, where no user reaches it before it is mounted."""
    copy = MEMORY + path
    shutil.rmtree(copy, ignore_errors=True)  # of a run that was cut off
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.mkdir(copy, 0o700)
        copy_folder(source, copy, with_files=with_files)
    else:
        copy_file(os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_NONBLOCK), copy)
    return copy


def copy_folder(source: int, copy: str, *, with_files: bool) -> None:
    """Of daemons that do not make their own log folder anew, the folders without their files."""
    device = os.fstat(source).st_dev
    for inside, folders, names, folder in os.fwalk(".", dir_fd=source):
        here, kept = os.path.join(copy, inside), []
        for name in folders + names:
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if status.st_dev == device and inside.count("/") < DEEPEST:
                        os.mkdir(os.path.join(here, name), 0o700)
                        kept.append(name)
                elif with_files:
                    copy_entry(folder, name, os.path.join(here, name))
        folders[:] = kept
        make_like(folder, here)


def copy_entry(folder: int, name: str, copy: str) -> None:
    """A file or a link; a socket, a pipe and what a user puts in their place meanwhile stay behind."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    try:
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=folder), copy)
            os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
        elif stat.S_ISREG(status.st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            copy_file(os.open(name, flags, dir_fd=folder), copy)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EINVAL, errno.ENXIO):
            raise


def copy_file(source: int, copy: str) -> None:
    with os.fdopen(source, "rb") as stream:
        if stat.S_ISREG(os.fstat(source).st_mode):
            with open(copy, "wb", opener=lambda path, flags: os.open(path, flags | os.O_EXCL, 0o600)) as made:
                shutil.copyfileobj(stream, made)
            make_like(source, copy)


def make_like(source: int, copy: str) -> None:
    status = os.fstat(source)
    os.chown(copy, status.st_uid, status.st_gid)
    shutil.copystat(f"/proc/self/fd/{source}", copy)


def begin() -> None:
    os.makedirs(ROOT, exist_ok=True)
    os.chmod(PLACE, 0o700)
    if not mounted(ROOT):
        run("mount", "--bind", "/", ROOT)
        run("mount", "--make-private", ROOT)
    run("journalctl", "--relinquish-var", check=False)
    for pattern in USED + WRITTEN:
        for path in glob.glob(pattern):
            if not os.path.islink(path):
                move_to_memory(path, with_files=pattern in USED)


def end() -> None:
    refused = put_all_back() if os.path.exists(KEPT) else []
    for name in ("image.json", "join.json"):
        remove(f"{ROOT if mounted(ROOT) else ''}/etc/clusterwright/{name}")
    for pattern in USED + WRITTEN:
        for path in glob.glob(pattern):
            take_away(path)
    run("journalctl", "--flush", check=False)
    if mounted(ROOT):
        run("umount", ROOT)
    if refused:
        os.replace(KEPT, LEFT)
        sys.exit(f"not put back, they stay in {LEFT}: {'; '.join(refused)}. Extract them from there by hand.")
    shutil.rmtree(PLACE, ignore_errors=True)


def take_away(path: str) -> None:
    """Unmounts a copy of ours, and nothing that a user has put under its name."""
    with suppress(Refused, FileNotFoundError), opened(path) as (target, place):
        if mounted(place) and is_copy(target, place):
            uncover(target)


def put_all_back() -> list[str]:
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
    with opened_folder(os.path.join(top, member.name), [top], make=True) as (folder, name):
        if member.issym():
            remove(name, folder)
            os.symlink(member.linkname, name, dir_fd=folder)
            os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
        elif source := archive.extractfile(member):
            fill(folder, name, source, member)


def fill(folder: int, name: str, source: IO[bytes], member: tarfile.TarInfo) -> None:
    """In place: what something is mounted on, machine-id, cannot be replaced by renaming."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as stream:
        status = os.fstat(descriptor)
        # A file of another user may be open for reading there: what root alone may know does not go into it.
        if (
            not stat.S_ISREG(status.st_mode)
            or status.st_nlink != 1
            or status.st_uid not in (os.geteuid(), member.uid)
        ):
            raise OSError("it was replaced meanwhile")
        os.ftruncate(descriptor, 0)
        os.fchown(descriptor, member.uid, member.gid)
        os.fchmod(descriptor, member.mode)
        shutil.copyfileobj(source, stream)
    os.utime(name, (member.mtime, member.mtime), dir_fd=folder, follow_symlinks=False)


def remove(path: str, folder: int | None = None) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path, dir_fd=folder)


if __name__ == "__main__":
    try:
        {"begin": begin, "end": end}[sys.argv[1]]()
    except (Refused, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"live_view.py {sys.argv[1]} stopped: {error}\nprovision image release gives the node back.")
