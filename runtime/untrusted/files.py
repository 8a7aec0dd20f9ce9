"""Files in a folder that came from elsewhere: opened if they are files, and of that folder."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_MOST_BYTES = 255  # of a name, NAME_MAX
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_name(name: object) -> str:
    """The name, if it is that of something in a folder and not of something outside.

    Raises:
        ValueError: it has a slash or is no printable name.
    """
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or "/" in name
        or not name.isprintable()
        or len(name.encode("utf-8", "replace")) > _MOST_BYTES
    ):
        raise ValueError(f"{str(name)[:80]!r} is not the name of a file in the folder")
    return name


def open_plain(path: Path) -> BufferedReader:
    """Opens a file for reading, and nothing else: no link is followed, no pipe waited for, no device touched.

    Raises:
        OSError: it is not there, or no regular file.
    """
    _check_kind(os.lstat(path).st_mode, path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    try:
        _check_kind(os.fstat(descriptor).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def read_plain(path: Path, limit_bytes: int) -> bytes:
    """All of a file that is not larger than the limit, as large as it is when it is opened.

    Raises:
        OSError: see `open_plain`.
        ValueError: it is larger.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise ValueError(f"it has {size} bytes, and at most {limit_bytes} are read")
        return file.read(size)  # that much is reserved at once: never the limit


def _check_kind(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
