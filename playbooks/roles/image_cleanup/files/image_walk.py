"""Walks an image's tree and reads its files; says which of them packages brought.

A part of image_tree.py, which is sent to a node as one text with it. Standard library only.
"""

from __future__ import annotations

import csv
import errno
import glob
import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import IO, Any

# Of a larger file the beginning and the end are read, half of this each.
MOST_BYTES = 64 << 20
# Of what is no text; and how many members of an archive are looked at.
MOST_BINARY, MOST_MEMBERS = 1 << 20, 1000
SWAP_OF_VIM = b"b0VIM"  # lines, with zeros between them
LEFT_OUT = {"dev", "proc", "run", "sys"}


def files_below(
    top: str, prefix: str, left_out: set[str], claims: Claims
) -> Iterator[tuple[str, str, bool, str]]:
    """Each file and link of one file system: its path in the table's words and on this machine, whether a
    package brought it, and why a folder in its place cannot be looked into."""
    device = os.lstat(top).st_dev
    waiting = [(os.path.normpath(prefix), top, True)]
    while waiting:
        shown, folder, of_root = waiting.pop()
        try:
            folders, names = folders_and_names(folder, device)
        except (FileNotFoundError, NotADirectoryError):  # a folder of a running node may go at any time
            continue
        except OSError as error:
            yield shown, folder, False, error.strerror or str(error)
            continue
        if folder == top:
            folders = [name for name in folders if name not in left_out]
        of_root = of_root and is_roots(folder)
        if of_root:
            claims.look(folder, shown, folders)
        for name in names:
            path = os.path.normpath(os.path.join(shown, name))
            if not name.endswith(".pyc"):
                yield path, os.path.join(folder, name), of_root and path in claims, ""
        waiting += [
            (os.path.normpath(os.path.join(shown, name)), os.path.join(folder, name), of_root)
            for name in reversed(folders)
        ]


def folders_and_names(folder: str, device: int) -> tuple[list[str], list[str]]:
    """What a folder holds, sorted; folders of other file systems are left out."""
    folders, names = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
            elif not is_elsewhere(entry, device):
                folders.append(entry.name)
    return sorted(folders), sorted(names)


def is_elsewhere(entry: os.DirEntry[str], device: int) -> bool:
    """What cannot be asked is looked into, and then named."""
    with suppress(OSError):
        return entry.stat(follow_symlinks=False).st_dev != device
    return False


def every_file(root: str, data: str) -> Iterator[tuple[str, str, bool, str]]:
    claims = Claims(root)
    yield from files_below(root, "", LEFT_OUT | ({"data"} if data else set()), claims)
    if data:
        yield from files_below(data, "data", set(), claims)


class Claims:
    """Paths, in the table's words, that packages brought by their own records.

    A record counts where root alone can write it and every folder on the way to it, and only for paths below
    its own folder: what a user writes of himself vouches for nothing.
    """

    def __init__(self, root: str) -> None:
        self._paths: set[str] = set()
        folder = root
        for name in ("", "var", "lib", "dpkg", "info"):
            folder = os.path.join(folder, name)
            if not is_roots(folder):
                return
        for record in glob.glob(os.path.join(glob.escape(folder), "*.list")):
            lines = [line.strip("/") for line in lines_of(record)]
            self._add("", lines)
            # Where / is merged into /usr.
            self._add("", ["usr/" + path for path in lines if path.startswith(("bin/", "sbin/", "lib"))])

    def __contains__(self, path: str) -> bool:
        return path in self._paths and not path.startswith(("etc/", "root/", "home/", "var/"))

    def look(self, folder: str, inside: str, folders: list[str]) -> None:
        """Takes in the records that a folder of root's holds of what lies below it."""
        if "conda-meta" in folders:
            for record in glob.glob(os.path.join(glob.escape(folder), "conda-meta", "*.json")):
                self._add(inside, json_of(record).get("files"))
            self._add(inside, json_of(os.path.join(folder, ".clusterwright/record.json")).get("entries"))
        if "info" in folders and os.path.exists(os.path.join(folder, "info/index.json")):
            self._add(inside, lines_of(os.path.join(folder, "info/files")))
        for name in folders:
            if name.endswith(".dist-info"):
                self._add(inside, first_columns(lines_of(os.path.join(folder, name, "RECORD"))))

    def _add(self, inside: str, names: object) -> None:
        below = inside + "/" if inside not in ("", ".") else ""
        for name in names if isinstance(names, (list, dict)) else ():
            path = os.path.normpath(os.path.join(inside, name)) if isinstance(name, str) else "/"
            if path.startswith(below) and not path.startswith(("/", "../")):
                self._paths.add(path)


def is_roots(path: str) -> bool:
    """Whether root alone can change what lies there; a link is not."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if status.st_uid not in (0, os.geteuid()):
        return False
    if stat.S_ISDIR(status.st_mode):  # in a sticky folder nobody takes away what is root's
        return not status.st_mode & stat.S_IWOTH or bool(status.st_mode & stat.S_ISVTX)
    of_others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0)
    return stat.S_ISREG(status.st_mode) and not status.st_mode & of_others


def record_of(place: str) -> str:
    with suppress(OSError):
        if is_roots(os.path.dirname(place)) and is_roots(place):
            return read(place).decode("utf-8", "replace")
    return ""


def lines_of(place: str) -> list[str]:
    return record_of(place).splitlines()


def first_columns(rows: list[str]) -> list[str]:
    with suppress(csv.Error):
        return [row[0] for row in csv.reader(rows) if row]
    return []


def json_of(place: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(record_of(place))
        if isinstance(found, dict):
            return found
    return {}


def manifest_of(root: str) -> dict[str, Any]:
    image = json_of(os.path.join(root, "etc/clusterwright/image.json")).get("image")
    return image if isinstance(image, dict) else {}


def data_path(root: str, data: str) -> str:
    """Where the machine has its data disk."""
    said = manifest_of(root).get("data_path") or (data if root == "/" else "")
    return os.path.normpath(said) if isinstance(said, str) and said.startswith("/") else "/data"


def environments(root: str, data: str) -> Iterator[tuple[str, str]]:
    """The jobs' environment, and those beside it in a folder envs: place here, and name in a finding."""
    disk = data_path(root, data)
    described = json_of(os.path.join(root, "etc/clusterwright/environment.json")).get("prefix")
    prefixes = {glob.escape(disk) + "/miniconda3/envs/*"}
    if isinstance(described, str) and described.startswith("/"):
        folder, name = os.path.split(glob.escape(os.path.normpath(described)))
        prefixes.add(f"{folder}/*" if os.path.basename(folder) == "envs" else f"{folder}/{name}")
    mount = glob.escape(disk) + "/"
    for prefix in sorted(prefixes):
        on_data = prefix.startswith(mount)
        top, below = (data, prefix[len(mount) :]) if on_data else (root, prefix.lstrip("/"))
        if not top:
            continue
        for place in sorted(glob.glob(os.path.join(glob.escape(top), below))):
            if os.path.isdir(place):
                yield place, ("data/" if on_data else "") + os.path.relpath(place, top)


def read(place: str) -> bytes:
    """A regular file, of a large one its beginning and end; a link, a socket or what has gone is empty."""
    try:
        if not stat.S_ISREG(os.lstat(place).st_mode):
            return b""
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.ENXIO):
            return b""
        raise
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        start = stream.read(8192)
        if is_binary(start):
            start += stream.read(MOST_BINARY // 2 - len(start))
            if status.st_size > MOST_BINARY:
                stream.seek(-MOST_BINARY // 2, os.SEEK_END)
            return start + stream.read(MOST_BINARY // 2)
        rest = stream.read(MOST_BYTES // 2)
        if status.st_size > MOST_BYTES:
            stream.seek(-MOST_BYTES // 2, os.SEEK_END)
        return start + rest + stream.read(MOST_BYTES // 2)


def is_binary(start: bytes) -> bool:
    return b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff", SWAP_OF_VIM))


def unpacked(content: bytes) -> bytes:
    """The beginning of what was compressed, or nothing; a small file may be made of a boundless one."""
    import bz2  # here: what nothing compressed needs may be missing in a node's Python
    import lzma
    import zlib

    with suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        if content.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(content, MOST_BINARY)
        if content.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(content, MOST_BINARY)
        if content.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor(memlimit=MOST_BYTES).decompress(content, MOST_BINARY)
    return b""


def members(place: str, content: bytes) -> Iterator[str]:
    """Names of what is not empty in an archive, of the first ones; read head by head, never unpacked."""
    if content.startswith(b"PK\x03\x04"):
        yield from members_of_zip(content)
    elif content[257:262] == b"ustar":
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            yield from members_of_tar(stream)
    else:
        start = unpacked(content)
        if start[257:262] == b"ustar":
            yield from members_of_tar(io.BytesIO(start))


def members_of_zip(content: bytes) -> Iterator[str]:
    """By its directory, at its end: each entry has a size, a name and its length (APPNOTE 4.3.12)."""
    for match in islice(re.finditer(rb"(?s)PK\x01\x02.{20}(.{4})(..)", content), MOST_MEMBERS):
        if any(match[1]):
            name = content[match.start() + 46 :][: int.from_bytes(match[2], "little")]
            yield re.sub(r"^(\.?/)+", "", name.decode("utf-8", "surrogateescape"))


def members_of_tar(stream: IO[bytes]) -> Iterator[str]:
    at, end, longer = 0, stream.seek(0, os.SEEK_END), ""
    for _ in range(MOST_MEMBERS):
        if at >= end:
            return
        stream.seek(at)
        try:
            head = tarfile.TarInfo.frombuf(stream.read(512), "utf-8", "surrogateescape")
        except tarfile.TarError:
            return
        if head.size < 0:
            return
        at += 512 + (head.size + 511) // 512 * 512
        if head.type == tarfile.GNUTYPE_LONGNAME:
            longer = stream.read(min(head.size, 4096)).rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif head.type == tarfile.XHDTYPE:
            said = re.search(rb"(?m)^[0-9]+ path=(.*)$", stream.read(min(head.size, 65536)))
            longer = said[1].decode("utf-8", "surrogateescape") if said else ""
        elif head.type not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            if head.size:
                yield re.sub(r"^(\.?/)+", "", longer or head.name)
            longer = ""
