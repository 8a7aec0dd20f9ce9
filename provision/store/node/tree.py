"""A tree on this machine's disk, by descriptors of its folders: no link in the way is ever followed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Collection, Iterator

from provision.store.node.manifest import Chunk, File, Link, Manifest

READ_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISLNK, "a link"), (stat.S_ISREG, "a file"))


class Tree:
    """The files below a folder; `fd` is open until `close`. One thread at a time, or a Tree for each."""

    def __init__(self, path: str, parent: int | None = None) -> None:
        self.path = path
        self.fd = os.open(path, _FOLDER, dir_fd=parent)
        self._near: tuple[str, int] = ("", self.fd)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._leave()
        os.close(self.fd)

    def _leave(self) -> None:
        if self._near[1] != self.fd:
            os.close(self._near[1])
        self._near = ("", self.fd)

    def folder(self, path: str, *, make: bool = False) -> int:
        """A folder of the tree, open until the next one is asked for.

        Raises:
            OSError: it is not there, or no folder.
        """
        if self._near[0] == path:
            return self._near[1]
        self._leave()
        at = self.fd
        try:
            for part in path.split("/") if path else ():
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=at)
                below = os.open(part, _FOLDER, dir_fd=at)
                if at != self.fd:
                    os.close(at)
                at = below
        except OSError:
            if at != self.fd:
                os.close(at)
            raise
        self._near = (path, at)
        return at

    def place(self, path: str, *, make: bool = False) -> tuple[int, str]:
        """The folder of something, and its name there."""
        above, _, name = path.rpartition("/")
        return self.folder(above, make=make), name

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """A regular file.

        Raises:
            OSError: it is not there, or something else.
        """
        at, name = self.place(path)
        descriptor = os.open(name, flags | _FILE, dir_fd=at)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{path} is no file")
        return descriptor

    def read(self, chunk: Chunk) -> bytes:
        """A chunk from the files that it consists of.

        Raises:
            OSError: a file is not there, or shorter; the bytes are others. The words name it.
        """
        pieces = []
        for part in chunk.parts:
            descriptor = self.open(part.file.path)
            try:
                piece = _read_at(descriptor, part.offset, part.size)
            finally:
                os.close(descriptor)
            if len(piece) != part.size:
                raise OSError(f"{part.file.path} is shorter than it was")
            pieces.append(piece)
        data = b"".join(pieces)
        if hashlib.sha256(data).hexdigest() != chunk.sha256:
            raise OSError(f"{', '.join(self._changed(chunk)) or 'something'} is not what it was")
        return data

    def _changed(self, chunk: Chunk) -> list[str]:
        files = list(dict.fromkeys(part.file for part in chunk.parts))
        return [file.path for file in files if self.sha256(file.path) != file.sha256][:5]

    def write(self, chunk: Chunk, data: bytes, skipped: Collection[str] = ()) -> None:
        """Puts a chunk into the files that it consists of, which are made where they are missing.

        Args:
            skipped: files that are proven already, and may have a name in another tree as well.

        Raises:
            OSError: the disk is full, or something else is in its place.
        """
        at = 0
        for part in chunk.parts:
            piece = data[at : at + part.size]
            at += part.size
            if part.file.path in skipped:
                continue
            descriptor = self._open_to_write(part.file)
            try:
                _write_at(descriptor, piece, part.offset)
            finally:
                os.close(descriptor)

    def _open_to_write(self, file: File) -> int:
        at, name = self.place(file.path, make=True)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | _FILE, 0o600, dir_fd=at)
        status = os.fstat(descriptor)
        # A file with other names belongs to another tree as well.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.close(descriptor)
            raise OSError(f"something else is in the place of {file.path}")
        return descriptor

    def sha256(self, path: str) -> str:
        """Of a file; "" where there is none."""
        try:
            descriptor = self.open(path)
        except OSError:
            return ""
        try:
            return _sha256(descriptor)
        finally:
            os.close(descriptor)

    def finish(self, file: File) -> bool:
        """Gives a file that is whole its mode; whether it is what the manifest says."""
        at, name = self.place(file.path, make=True)
        if not file.size:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=at))
        try:
            descriptor = self.open(file.path)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
            if status.st_size != file.size or _sha256(descriptor) != file.sha256:
                return False
            if stat.S_IMODE(status.st_mode) != _on_disk(file.mode):
                os.fchmod(descriptor, _on_disk(file.mode))
            return True
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> None:
        """A file or link that is not what it should be."""
        with contextlib.suppress(FileNotFoundError):
            at, name = self.place(path)
            os.unlink(name, dir_fd=at)

    def link(self, link: Link) -> None:
        at, name = self.place(link.path, make=True)
        try:
            os.symlink(link.target, name, dir_fd=at)
        except FileExistsError:
            if os.readlink(name, dir_fd=at) != link.target:
                raise

    def adopt(self, other: Tree, path: str, file: File) -> None:
        """Gives a file of another tree a second name in this one: it is on the disk once."""
        at, name = self.place(file.path, make=True)
        theirs, called = other.place(path)
        with contextlib.suppress(FileExistsError):
            os.link(called, name, src_dir_fd=theirs, dst_dir_fd=at, follow_symlinks=False)

    def walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below, folders after what is in them; links are not followed."""
        yield from _walk(self.fd, "", 0)


def freeze(tree: Tree, manifest: Manifest) -> None:
    """Gives a tree that was made here the modes that one which is received has."""
    for file in manifest.files:
        descriptor = tree.open(file.path)
        try:
            os.fchmod(descriptor, _on_disk(file.mode))
            os.fchown(descriptor, os.geteuid(), os.getegid())
        finally:
            os.close(descriptor)
    for path, status in tree.walk():
        if stat.S_ISDIR(status.st_mode):
            os.fchmod(tree.folder(path), 0o755)


def _walk(at: int, above: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    if depth > 200:
        raise OSError(f"{above[:80]} is too deep")
    for name in sorted(os.listdir(at)):
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, _FOLDER, dir_fd=at)
            try:
                yield from _walk(below, f"{above}{name}/", depth + 1)
            finally:
                os.close(below)
        yield above + name, status


def differences(path: str, manifest: Manifest, *, full: bool, threads: int) -> list[str]:
    """What of a tree is not as its manifest says, by name; with `full` each file is read.

    Raises:
        OSError: the tree is not there.
    """
    with Tree(path) as tree:
        there = dict(tree.walk())
        found = list(_unlike(tree, manifest, there))
        wrong = {line.split(":")[0] for line in found}
    if full:
        files = [file for file in manifest.files if file.path in there and file.path not in wrong]
        found += _changed(path, files, threads)
    return sorted(found)


def _changed(path: str, files: list[File], threads: int) -> list[str]:
    def of(some: list[File]) -> list[str]:
        with Tree(path) as tree:
            return [f"{f.path}: its content changed" for f in some if tree.sha256(f.path) != f.sha256]

    by_size = sorted(files, key=lambda file: -file.size)
    with ThreadPoolExecutor(threads) as pool:
        return [
            line
            for lines in pool.map(of, [by_size[n : n + 16] for n in range(0, len(by_size), 16)])
            for line in lines
        ]


def _unlike(tree: Tree, manifest: Manifest, there: dict[str, os.stat_result]) -> Iterator[str]:
    wanted: set[str] = set()
    for file in manifest.files:
        wanted.add(file.path)
        yield from _unlike_file(file, there.get(file.path))
    for link in manifest.links:
        wanted.add(link.path)
        status = there.get(link.path)
        if status is None:
            yield f"{link.path}: it is gone"
        elif not stat.S_ISLNK(status.st_mode):
            yield f"{link.path}: it is {kind_of(status)}, no link"
        else:
            at, name = tree.place(link.path)
            if os.readlink(name, dir_fd=at) != link.target:
                yield f"{link.path}: it leads elsewhere"
    for folder in manifest.folders:
        wanted.add(folder)
        if folder not in there or not stat.S_ISDIR(there[folder].st_mode):
            yield f"{folder}: the folder is gone"
    folders = {above for path in wanted for above in _above(path)}
    for path, status in there.items():
        if path not in wanted and not (path in folders and stat.S_ISDIR(status.st_mode)):
            yield f"{path}: {kind_of(status)} that was not there"
        elif stat.S_ISDIR(status.st_mode) and (status.st_mode & 0o7022 or status.st_uid != os.geteuid()):
            yield f"{path}: others may write there"


def _unlike_file(file: File, status: os.stat_result | None) -> Iterator[str]:
    if status is None:
        yield f"{file.path}: it is gone"
    elif not stat.S_ISREG(status.st_mode):
        yield f"{file.path}: it is {kind_of(status)}, no file"
    elif status.st_size != file.size:
        yield f"{file.path}: it has {status.st_size} bytes, not {file.size}"
    elif stat.S_IMODE(status.st_mode) & ~0o200 != _on_disk(file.mode):
        yield f"{file.path}: its mode is {stat.S_IMODE(status.st_mode):04o}"
    elif status.st_uid != os.geteuid():
        yield f"{file.path}: it belongs to user {status.st_uid}"


def kind_of(status: os.stat_result) -> str:
    return next((word for is_it, word in _KINDS if is_it(status.st_mode)), "something special")


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _on_disk(mode: int) -> int:
    """Nobody is to write what other trees, and nodes, are given."""
    return mode & 0o555


def _sha256(descriptor: int) -> str:
    found, offset = hashlib.sha256(), 0
    while piece := os.pread(descriptor, READ_BYTES, offset):
        found.update(piece)
        offset += len(piece)
    return found.hexdigest()


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    pieces = []
    while size:
        piece = os.pread(descriptor, size, offset)
        if not piece:
            break
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return b"".join(pieces)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
