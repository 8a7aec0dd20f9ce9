"""Keeps what is taken from an image's tree, in an archive in memory, from which the node gets it back.

A part of image_tree.py and live_view.py, sent to a node as one text with each. Standard library only.
"""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

# Of what the machine needs to be itself again: it is kept in memory.
MOST_OF_A_FILE, MOST_KEPT = 64 << 20, 256 << 20
# Whose .ssh live_view.py covers with a copy in memory, which the running node goes on using.
COVERED_HOMES = ("root", "home/*")
TAKE_AWAY = "Take it away or make it smaller, then run image.yml again."


def save(kept: Mapping[str, str], keep: str, tops: list[str]) -> None:
    """kept: paths by place. Never over an older archive, which holds what an interrupted cleaning took away.

    It lies in memory, and users say how large their files are: so each is bounded, and all of them together.
    """
    if os.path.exists(keep):
        return
    partial = keep + ".partial"
    descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    memory = os.fstatvfs(descriptor)
    left, path = min(MOST_KEPT, memory.f_bavail * memory.f_frsize // 2), keep
    try:
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            for place, path in sorted(kept.items()):
                with opened_folder(place, tops) as (folder, name), suppress(FileNotFoundError):
                    left -= add(archive, folder, name, path, min(left, MOST_OF_A_FILE))
        os.replace(partial, keep)
    except OSError as error:
        with suppress(OSError):
            os.unlink(partial)
        sys.exit(
            f"/{path} cannot be kept ({error.strerror or error}), so nothing was taken away. {TAKE_AWAY}"
        )


def add(archive: tarfile.TarFile, folder: int, name: str, path: str, most: int) -> int:
    """Adds a file or a link, in which it takes at most this many bytes of the archive; returns how many.

    Not by its name, where a user may put a link to root's files meanwhile.
    """
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        member = tarfile.TarInfo(path)
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=folder)
        member.uid, member.gid, member.mtime = status.st_uid, status.st_gid, status.st_mtime
        archive.addfile(member)
        return 1024
    if not stat.S_ISREG(status.st_mode):
        return 0
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb") as stream:
        member = archive.gettarinfo(arcname=path, fileobj=stream)
        if member.size + 1024 > most:
            raise OSError(f"it has {member.size} bytes, and there is room for {max(most - 1024, 0)}")
        archive.addfile(member, stream)
    return member.size + 1024


@contextmanager
def opened_folder(place: str, tops: list[str], *, make: bool = False) -> Iterator[tuple[int, str]]:
    """A file's folder, opened, and its name; users of a running node may put links in the way meanwhile.

    No link is followed, of whomever: none lay on the way when the file was found (node_place.Place, for paths
    that a site or the system names, follows root's). make: folders that have gone are made.
    """
    top = max((top for top in tops if top and place.startswith(top.rstrip("/") + "/")), key=len)
    *names, name = os.path.relpath(place, top).split("/")
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for one in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(one, 0o755, dir_fd=folder)
            outer = folder
            folder = os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=outer)
            os.close(outer)
        yield folder, name
    finally:
        os.close(folder)
