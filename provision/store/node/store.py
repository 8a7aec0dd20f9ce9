"""The store of a machine: what is whole, what is arriving, and which generation of a name is in use.

    manifests/DIGEST.json    of each tree that is whole
    trees/NAME-DIGEST/       whole and verified; nothing is written in it any more
    partial/DIGEST/          what arrives: manifest.json, have (a byte for each chunk), tree/
    active/NAME.json         the digests that NAME led to, the last of them now

A store has a claim in it. A folder without one, of another owner, or behind a link is somebody else's, and is
not touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import stat
import tempfile
from typing import Iterator, NamedTuple

from provision.store.node.manifest import (
    MOST_TEXT_BYTES,
    BadManifest,
    Manifest,
    digest_of,
    is_digest,
    is_name,
    parse,
)

CLAIM, CLAIMED = "clusterwright", "Made by Clusterwright: trees that were delivered, by their content.\n"
PARTS = ("manifests", "trees", "partial", "active")
MOST_GENERATIONS = 64


class StoreError(OSError):
    """What keeps this machine's store from its work, in words."""


class Whole(NamedTuple):
    """A tree that is whole."""

    name: str
    digest: str
    path: str


class Store:
    """The store at a path, which is made where nothing is there."""

    def __init__(self, path: str, *, make: bool = True) -> None:
        self.path = path
        if not os.path.lexists(path):
            if not make:
                raise StoreError(f"there is no store at {path}")
            _make(path)
        _refuse_foreign(path)
        for part in PARTS:
            below = os.path.join(path, part)
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(below, 0o755)
            _refuse_no_folder(below)

    def tree(self, name: str, digest: str) -> str:
        return os.path.join(self.path, "trees", f"{name}-{digest}")

    def partial(self, digest: str) -> str:
        return os.path.join(self.path, "partial", digest)

    def whole(self) -> Iterator[Whole]:
        """What is whole here; what has another name, or no manifest, is not ours to speak of."""
        for called in sorted(os.listdir(os.path.join(self.path, "trees"))):
            name, _, digest = called.rpartition("-")
            path = os.path.join(self.path, "trees", called)
            if (
                is_name(name)
                and is_digest(digest)
                and stat.S_ISDIR(os.lstat(path).st_mode)
                and os.path.isfile(self._manifest(digest))
            ):
                yield Whole(name, digest, path)

    def find(self, digest: str) -> Whole | None:
        return next((one for one in self.whole() if one.digest == digest), None)

    def _manifest(self, digest: str) -> str:
        return os.path.join(self.path, "manifests", f"{digest}.json")

    def text(self, digest: str) -> bytes:
        """A manifest's text.

        Raises:
            StoreError: it is not there, or not what its name says.
        """
        path = self._manifest(digest)
        try:
            text = read_file(path, MOST_TEXT_BYTES)
        except OSError as e:
            raise StoreError(f"{path}: {e.strerror or e}") from e
        if digest_of(text) != digest:
            raise StoreError(f"{path} is not what it was")
        return text

    def manifest(self, digest: str) -> Manifest:
        try:
            return parse(self.text(digest))
        except BadManifest as e:
            raise StoreError(f"{self._manifest(digest)}: {e}") from e

    def put_in_place(self, name: str, digest: str, tree: str, text: bytes) -> str:
        """A tree that is whole and verified; its manifest is there first."""
        write_file(self._manifest(digest), text)
        _sync(tree)
        place = self.tree(name, digest)
        if os.path.lexists(place):
            raise StoreError(f"{place} is there already")
        os.chmod(tree, 0o755)
        os.rename(tree, place)
        return place

    def forget(self, digest: str) -> None:
        """What has arrived of a tree so far."""
        _remove(self.partial(digest))

    def remove(self, whole: Whole) -> None:
        """A tree that nothing leads to; its name goes first: what is left of it is never taken for it."""
        going = os.path.join(self.path, "partial", f"going-{whole.digest}")
        _remove(going)
        os.rename(whole.path, going)
        if self.find(whole.digest) is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._manifest(whole.digest))
        _remove(going)

    def generations(self, name: str) -> list[str]:
        """The digests that a name led to, the present one last."""
        try:
            found = json.loads(read_file(os.path.join(self.path, "active", f"{name}.json"), 1 << 16))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as e:
            raise StoreError(f"the generations of {name} cannot be read: {e}") from e
        if not isinstance(found, list) or not all(is_digest(one) for one in found):
            raise StoreError(f"the generations of {name} cannot be read")
        return found

    def names(self) -> list[str]:
        """Names that lead to a tree."""
        found = sorted(os.listdir(os.path.join(self.path, "active")))
        return [one[:-5] for one in found if one.endswith(".json") and is_name(one[:-5])]

    def lead(self, name: str, digest: str, links: str) -> None:
        """Has `links/NAME` lead to a tree; before it another tree, or nothing, was there.

        Raises:
            StoreError: something else has that name, or the tree is not whole.
        """
        if not os.path.isdir(self.tree(name, digest)):
            raise StoreError(f"{name} of {digest[:12]} is not here")
        link = self.refuse_foreign_link(name, links)
        generations = [one for one in self.generations(name) if one != digest]
        os.makedirs(links, exist_ok=True)
        record = json.dumps([*generations, digest][-MOST_GENERATIONS:]).encode()
        write_file(os.path.join(self.path, "active", f"{name}.json"), record)
        new = os.path.join(links, f".{name}.{os.getpid()}")
        os.symlink(self.tree(name, digest), new)
        os.replace(new, link)

    def leave(self, name: str, links: str) -> None:
        """Takes a name away; its trees stay."""
        link = self.refuse_foreign_link(name, links)
        for path in (link, os.path.join(self.path, "active", f"{name}.json")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def refuse_foreign_link(self, name: str, links: str) -> str:
        link = os.path.join(links, name)
        ours = os.path.join(self.path, "trees", "")
        if os.path.lexists(link) and not (os.path.islink(link) and os.readlink(link).startswith(ours)):
            raise StoreError(f"{link} is somebody else's: it is no link into {ours}. Move it to another name")
        return link


def read_file(path: str, most: int) -> bytes:
    """A plain file of so many bytes at most; no link is followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"{path} is no file")
        data = stream.read(most + 1)
    if len(data) > most:
        raise StoreError(f"{path} is too large")
    return data


def write_file(path: str, data: bytes) -> None:
    """Nobody sees half of it."""
    descriptor, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise


def _sync(path: str) -> None:
    """What was written to the disk of a folder is there (syncfs(2)); other disks are not waited for."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise StoreError(f"what was written below {path} did not reach the disk")
    finally:
        os.close(descriptor)


def _make(path: str) -> None:
    """With its claim from the start: it is ours at once, or not at all."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):  # the data disk is not mounted: the system's would fill up
        raise StoreError(f"there is no folder {parent} here: run site.yml first")
    new = tempfile.mkdtemp(prefix=".clusterwright-store-", dir=parent)
    write_file(os.path.join(new, CLAIM), CLAIMED.encode())
    os.chmod(new, 0o755)
    with contextlib.suppress(FileExistsError, OSError):
        os.rename(new, path)
    if os.path.lexists(new):
        shutil.rmtree(new)


def _refuse_foreign(path: str) -> None:
    words = f"{path} is somebody else's: move it to another name, or set another place for the store"
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StoreError(words)
    try:
        claimed = read_file(os.path.join(path, CLAIM), 1024) == CLAIMED.encode()
    except OSError as e:
        raise StoreError(words) from e
    if not claimed:
        raise StoreError(words)


def _refuse_no_folder(path: str) -> None:
    try:
        status = os.lstat(path)
    except OSError as e:
        raise StoreError(f"{path}: {e.strerror}") from e
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StoreError(f"{path} is no folder of ours")


def _remove(path: str) -> None:
    if os.path.lexists(path):
        shutil.rmtree(path)
