"""From a folder to its manifest: every file read once, in threads."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Iterable, NamedTuple

from provision.store.node.manifest import (
    CHUNK_BYTES,
    BadManifest,
    File,
    Group,
    Link,
    Manifest,
    refuse_bad_path,
    refuse_bad_paths,
)
from provision.store.node.tree import READ_BYTES, Tree, kind_of

_PACKAGE = re.compile("(lib/python3[^/]*/site-packages/[^/]+)/.+")


class _Entry(NamedTuple):
    path: str
    status: os.stat_result


def group_of(path: str, kind: str) -> str:
    """What changes together with a path: a file of a model, a package or a folder of an environment."""
    if kind == "model":
        return path
    package = _PACKAGE.fullmatch(path)
    return package[1] if package else path.split("/")[0]


def packed(path: str, kind: str, *, leave_out: Iterable[str] = (), threads: int = 4) -> Manifest:
    """The manifest of a folder.

    Args:
        leave_out: names of folders, at its top, which are not part of the tree.

    Raises:
        BadManifest: it holds something that no tree may hold, named.
        OSError: it cannot be read, or changes meanwhile.
    """
    with Tree(path) as tree:
        entries = [_Entry(*one) for one in tree.walk()]
        left_out = tuple(f"{name}/" for name in leave_out)
        entries = [one for one in entries if not f"{one.path}/".startswith(left_out or "\0")]
        for one in entries:
            refuse_bad_path(one.path)
        links = {
            one.path: Link(one.path, _target(tree, one.path))
            for one in entries
            if stat.S_ISLNK(one.status.st_mode)
        }
    files: dict[str, list[_Entry]] = {}
    names = set()
    folders = _empty_folders(entries)
    for one in entries:
        if stat.S_ISDIR(one.status.st_mode) and one.path not in folders:
            continue
        names.add(group_of(one.path, kind))
        if stat.S_ISREG(one.status.st_mode):
            files.setdefault(group_of(one.path, kind), []).append(one)
        elif one.path not in folders and one.path not in links:
            raise BadManifest(f"{one.path!a} is {kind_of(one.status)}: a tree holds files, folders and links")
    ordered = sorted(names)
    # The largest first: at the end no thread is left alone with one of them.
    by_size = sorted(ordered, key=lambda name: -sum(one.status.st_size for one in files.get(name, [])))
    with ThreadPoolExecutor(threads) as pool:
        hashed = dict(zip(by_size, pool.map(lambda name: _hashed(path, files.get(name, [])), by_size)))
    manifest = Manifest(
        kind=kind,
        groups=tuple(
            Group(
                name=name,
                files=hashed[name][0],
                links=tuple(link for _, link in sorted(links.items()) if group_of(link.path, kind) == name),
                folders=tuple(one for one in sorted(folders) if group_of(one, kind) == name),
                chunks=hashed[name][1],
            )
            for name in ordered
        ),
    )
    refuse_bad_paths(manifest)
    return manifest


def _target(tree: Tree, path: str) -> str:
    at, name = tree.place(path)
    return os.readlink(name, dir_fd=at)


def _empty_folders(entries: list[_Entry]) -> set[str]:
    above = {one.path.rpartition("/")[0] for one in entries}
    return {one.path for one in entries if stat.S_ISDIR(one.status.st_mode) and one.path not in above}


def _hashed(root: str, entries: list[_Entry]) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """A group's files, sorted by path, and its chunks: each byte is read once and hashed for both."""
    files: list[File] = []
    chunks: list[str] = []
    chunk, room = hashlib.sha256(), CHUNK_BYTES
    with Tree(root) as tree:
        for path, status in sorted(entries):
            whole, size = hashlib.sha256(), 0
            descriptor = tree.open(path)
            try:
                while piece := os.read(descriptor, min(READ_BYTES, room)):
                    whole.update(piece)
                    chunk.update(piece)
                    size, room = size + len(piece), room - len(piece)
                    if not room:
                        chunks.append(chunk.hexdigest())
                        chunk, room = hashlib.sha256(), CHUNK_BYTES
            finally:
                os.close(descriptor)
            if size != status.st_size:
                raise OSError(f"{path} changed while it was read")
            files.append(File(path, size, 0o755 if status.st_mode & 0o100 else 0o644, whole.hexdigest()))
    if room != CHUNK_BYTES:
        chunks.append(chunk.hexdigest())
    return tuple(files), tuple(chunks)
