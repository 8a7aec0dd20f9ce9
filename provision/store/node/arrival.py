"""A tree while it arrives: each chunk is written into the files that it belongs to, and counted in `have`.

What was verified stays when this ends, however it ends: the next one goes on from there. A file is proven by
its own hash as soon as its chunks are there, and the tree takes its place once all are.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections import deque
from typing import Callable

from provision.store.node.links import LinkError
from provision.store.node.manifest import (
    MOST_TEXT_BYTES,
    BadManifest,
    Chunk,
    File,
    Manifest,
    digest_of,
    parse,
)
from provision.store.node.store import Store, StoreError, Whole, read_file, write_file
from provision.store.node.tree import Tree, differences

RESERVE_BYTES = 1 << 30
_MOST_REPEATS = 3
_MOST_RECENT = 8


class BadChunk(LinkError):
    """What came is not what the manifest says."""


class Arrival:
    """One tree in one store, for many threads. `changed` is notified when a chunk or the whole is there."""

    def __init__(self, store: Store, name: str, digest: str, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.store, self.name, self.digest = store, name, digest
        self.changed = threading.Condition()
        self.text = b""
        self.manifest: Manifest | None = None
        self.have = bytearray()
        self.order: list[int] = []  # chunks as they came
        self.is_whole = False
        self.bytes = self.adopted_bytes = 0
        self.error = ""
        self._reserve = reserve_bytes
        self._path = ""  # of the tree, while it arrives and afterwards
        self._trees = threading.local()
        self._record = -1
        self._finished: set[str] = set()
        self._left: dict[str, int] = {}  # chunks that a file lacks
        self._files = 0
        self._ready: deque[File] = deque()
        self._repeats = 0
        self._recent: dict[int, bytes] = {}  # as they came and were proven: most are passed on at once

    def begin(self) -> None:
        """Takes up what is here: the whole tree, or a part of it with its manifest.

        Raises:
            StoreError: what is here is not as it was.
        """
        whole = self.store.find(self.digest)
        if whole is not None:
            self._take_whole(whole)
            return
        text = b""
        with contextlib.suppress(FileNotFoundError):
            text = read_file(os.path.join(self.store.partial(self.digest), "manifest.json"), MOST_TEXT_BYTES)
        with contextlib.suppress(BadManifest):  # it is fetched again
            self.take_text(text)

    def _take_whole(self, whole: Whole) -> None:
        self.text = self.store.text(self.digest)
        self.manifest = self.store.manifest(self.digest)
        if odd := differences(whole.path, self.manifest, full=False, threads=1):
            raise StoreError(f"{whole.path} is not as it was: {'; '.join(odd[:5])}")
        self._path = whole.path
        if whole.name != self.name:
            self._name_again(whole)
        self.have = bytearray(b"\1" * len(self.manifest.chunks))
        self.bytes = self.adopted_bytes = self.manifest.bytes
        self.is_whole = True

    def _name_again(self, whole: Whole) -> None:
        """The same tree under another name: its files are on the disk once."""
        assert self.manifest is not None
        new = os.path.join(self.store.partial(self.digest), "tree")
        os.makedirs(new, exist_ok=True)
        with Tree(whole.path) as old, Tree(new) as tree:
            for file in self.manifest.files:
                tree.adopt(old, file.path, file)
            _links_and_folders(tree, self.manifest)
        self._path = self.store.put_in_place(self.name, self.digest, new, self.text)
        self.store.forget(self.digest)

    def take_text(self, text: bytes) -> None:
        """The manifest, from elsewhere; then what is here already of the tree.

        Raises:
            BadManifest: it is another one, or none.
            StoreError: the disk is too small.
        """
        if digest_of(text) != self.digest:
            raise BadManifest("it is another tree's manifest")
        manifest = parse(text)
        partial = self.store.partial(self.digest)
        self._path = os.path.join(partial, "tree")
        os.makedirs(self._path, 0o700, exist_ok=True)
        write_file(os.path.join(partial, "manifest.json"), text)
        self._record = os.open(
            os.path.join(partial, "have"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        os.ftruncate(self._record, len(manifest.chunks))
        have = bytearray(one == 1 for one in os.pread(self._record, len(manifest.chunks), 0))
        left: dict[str, int] = {}
        for number, chunk in enumerate(manifest.chunks):
            for part in chunk.parts:
                left[part.file.path] = left.get(part.file.path, 0) + (not have[number])
        self._left, self._files = left, sum(1 for _ in manifest.files)
        self._adopt(manifest, have)
        with self.changed:
            self.text, self.have = text, have
            self.bytes = sum(chunk.size for chunk, got in zip(manifest.chunks, have) if got)
            self._ready.extend(
                file for file in manifest.files if not left.get(file.path) and file.path not in self._finished
            )
            self.manifest = manifest
            self.changed.notify_all()
        self._refuse_small_disk(manifest.bytes - self.bytes)

    def _refuse_small_disk(self, missing: int) -> None:
        disk = os.statvfs(self._path)
        free = disk.f_bavail * disk.f_frsize
        if free < missing + self._reserve:
            raise StoreError(
                f"the disk of {self.store.path} has {_mib(free)} MiB free; {_mib(missing)} MiB are to come, "
                f"and {_mib(self._reserve)} MiB have to stay free"
            )

    def _adopt(self, manifest: Manifest, have: bytearray) -> None:
        """Files and chunks that other trees here have; each is proven before it counts."""
        files: dict[tuple[str, int], tuple[str, str]] = {}
        chunks: dict[str, tuple[str, Chunk]] = {}
        for whole in self.store.whole():
            with contextlib.suppress(StoreError):
                other = self.store.manifest(whole.digest)
                files.update({(one.sha256, one.mode): (whole.path, one.path) for one in other.files})
                chunks.update({one.sha256: (whole.path, one) for one in other.chunks})
        with contextlib.ExitStack() as opened:
            trees = {path: opened.enter_context(Tree(path)) for path in {one[0] for one in files.values()}}
            for file in manifest.files:
                found = files.get((file.sha256, file.mode))
                if found and file.size and self._left[file.path]:
                    self._adopt_file(trees[found[0]], found[1], file)
            for number, chunk in enumerate(manifest.chunks):
                if have[number]:
                    continue
                if all(part.file.path in self._finished for part in chunk.parts):
                    self._count(number, have, chunk)
                elif chunk.sha256 in chunks:
                    path, theirs = chunks[chunk.sha256]
                    with contextlib.suppress(OSError):
                        self._tree().write(chunk, trees[path].read(theirs), skipped=self._finished)
                        self._count(number, have, chunk)

    def _adopt_file(self, other: Tree, path: str, file: File) -> None:
        tree = self._tree()
        tree.remove(file.path)
        with contextlib.suppress(OSError):
            tree.adopt(other, path, file)
            if tree.finish(file):
                self._finished.add(file.path)
                return
        tree.remove(file.path)

    def _count(self, number: int, have: bytearray, chunk: Chunk) -> None:
        os.pwrite(self._record, b"\1", number)
        have[number] = 1
        self.adopted_bytes += chunk.size
        for part in chunk.parts:
            self._left[part.file.path] -= 1

    def _tree(self) -> Tree:
        """A tree for this thread."""
        if getattr(self._trees, "of", None) != self._path:
            self._trees.tree, self._trees.of = Tree(self._path), self._path
        tree: Tree = self._trees.tree
        return tree

    def wanted(self, lane: int, lanes: int) -> list[int]:
        """The chunks of a lane that are not here."""
        with self.changed:
            return [number for number in range(lane, len(self.have), lanes) if not self.have[number]]

    def put(self, number: int, data: bytes) -> None:
        """A chunk that came.

        Raises:
            BadChunk: it is not what the manifest says.
            StoreError: it cannot be written.
        """
        manifest = self.manifest
        if manifest is None or number >= len(manifest.chunks):
            raise BadChunk("a chunk came that the tree does not have")
        chunk = manifest.chunks[number]
        if len(data) != chunk.size or hashlib.sha256(data).hexdigest() != chunk.sha256:
            raise BadChunk(f"chunk {number} ({chunk.parts[0].file.path}) came with other bytes")
        try:
            self._tree().write(chunk, data, skipped=self._finished)
            os.pwrite(self._record, b"\1", number)
        except OSError as e:
            raise StoreError(_words(e, self.store.path)) from e
        with self.changed:
            if self.have[number]:
                return
            self.have[number] = 1
            self.order.append(number)
            self._recent[number] = data
            if len(self._recent) > _MOST_RECENT:
                del self._recent[next(iter(self._recent))]
            self.bytes += chunk.size
            for part in chunk.parts:
                self._left[part.file.path] -= 1
                if not self._left[part.file.path] and part.file.path not in self._finished:
                    self._ready.append(part.file)
            self.changed.notify_all()

    def read(self, number: int) -> bytes:
        """A chunk for somebody else: as it just came, or as it is on the disk, proven once more.

        Raises:
            OSError: it is not what it was; the words name the file.
        """
        assert self.manifest is not None
        with self.changed:
            recent = self._recent.get(number)
        if recent is not None:
            return recent
        return self._tree().read(self.manifest.chunks[number])

    def prove(self, has_ended: Callable[[], bool]) -> None:
        """Proves each file whose chunks are there, until the tree is whole and in its place.

        Raises:
            StoreError: the disk gives back other bytes than were written, or the tree cannot take its place.
        """
        while not (self.is_whole or has_ended()):
            with self.changed:
                if self.manifest is None or (not self._ready and not self._is_proven()):
                    self.changed.wait(0.2)
                    continue
                file = self._ready.popleft() if self._ready else None
            if file is None:
                self._complete()
            elif self._tree().finish(file):
                with self.changed:
                    self._finished.add(file.path)
            else:
                self._again(file)

    def _is_proven(self) -> bool:
        return self.manifest is not None and len(self._finished) == self._files

    def _again(self, file: File) -> None:
        """A file that is not what its chunks were: they are fetched once more."""
        assert self.manifest is not None
        self._repeats += 1
        if self._repeats > _MOST_REPEATS:
            raise StoreError(f"{file.path} is another one on the disk than was written: look at its disk")
        self._tree().remove(file.path)
        with self.changed:
            for number, chunk in enumerate(self.manifest.chunks):
                if self.have[number] and any(part.file.path == file.path for part in chunk.parts):
                    self.have[number] = 0
                    os.pwrite(self._record, b"\0", number)
                    self.bytes -= chunk.size
                    for part in chunk.parts:
                        self._left[part.file.path] += 1
            self.changed.notify_all()

    def _complete(self) -> None:
        assert self.manifest is not None
        try:
            _links_and_folders(self._tree(), self.manifest)
            path = self.store.put_in_place(self.name, self.digest, self._path, self.text)
        except OSError as e:
            raise StoreError(_words(e, self.store.path)) from e
        self.store.forget(self.digest)
        with self.changed:
            self._path = path
            self.is_whole = True
            self.changed.notify_all()


def _links_and_folders(tree: Tree, manifest: Manifest) -> None:
    for folder in manifest.folders:
        tree.folder(folder, make=True)
    for link in manifest.links:
        tree.link(link)


def _words(error: OSError, path: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {path} is full: make room and run it again, what has arrived stays"
    return error.strerror or str(error)


def _mib(count: int) -> int:
    return -(-count >> 20)
