"""A bundle on this machine's disk, held against its manifest: nothing of it is run, no link followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from provision.bundle.contents import MANIFEST, Contents, File, parse
from provision.errors import BadInput
from provision.store.node.manifest import MOST_TEXT_BYTES, digest_of
from provision.store.node.tree import Tree, kind_of

_THREADS = 4
_AT_ONCE = 16  # files that a thread takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle's folder, what its manifest says, and its digest (sha256 of the manifest, hex)."""

    folder: Path
    contents: Contents
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is not as the manifest says, by its path in the bundle."""

    path: str
    what: str


def read(folder: Path) -> Bundle:
    """Reads a bundle's manifest.

    Raises:
        BadInput: there is no bundle, or its manifest is none.
    """
    try:
        with Tree(str(folder)) as tree:
            descriptor = tree.open(MANIFEST)
            with open(descriptor, "rb") as stream:
                text = stream.read(MOST_TEXT_BYTES + 1)
    except OSError as e:
        raise BadInput(
            f"read the bundle {folder}",
            found=f"{MANIFEST} in it cannot be read ({e.strerror or e})",
            fix="Name a complete bundle's folder; `bundle create` goes on with one that was cut off.",
        ) from e
    return Bundle(folder=folder, contents=parse(text, name=str(folder / MANIFEST)), digest=digest_of(text))


def differences(
    bundle: Bundle, *, full: bool = True, on_bytes: Callable[[int], None] = lambda _: None
) -> list[Difference]:
    """What of a bundle is missing, surplus or another one, by name.

    Args:
        full: whether each file is read; else names, kinds and sizes alone count.
        on_bytes: gets the size of each file that was read.

    Raises:
        BadInput: a folder of it cannot be read.
    """
    try:
        with Tree(str(bundle.folder)) as tree:
            there = dict(tree.walk())
    except OSError as e:
        fix = "Run it as somebody who may read all of it."
        raise BadInput(f"verify {bundle.folder}", found=e.strerror or str(e), fix=fix) from e
    found = [*_unlike(bundle.contents.files, there), *_surplus(bundle.contents.files, there)]
    if full:
        wrong = {one.path for one in found}
        right = [file for file in bundle.contents.files if file.path not in wrong]
        found += _changed(bundle.folder, right, on_bytes)
    return sorted(found, key=lambda one: one.path)


def _unlike(files: Sequence[File], there: Mapping[str, os.stat_result]) -> Iterator[Difference]:
    for file in files:
        status = there.get(file.path)
        if status is None:
            yield Difference(path=file.path, what="it is missing")
        elif not stat.S_ISREG(status.st_mode):
            yield Difference(path=file.path, what=f"it is {kind_of(status)}, no file")
        elif status.st_size != file.size:
            yield Difference(path=file.path, what=f"it has {status.st_size} bytes, not {file.size}")


def _surplus(files: Sequence[File], there: Mapping[str, os.stat_result]) -> Iterator[Difference]:
    known = {MANIFEST, *(file.path for file in files)}
    above = {
        "/".join(parts[:n]) for path in known for parts in [path.split("/")] for n in range(1, len(parts))
    }
    for path, status in there.items():
        if path not in known and not (path in above and stat.S_ISDIR(status.st_mode)):
            yield Difference(path=path, what=f"{kind_of(status)} that the manifest does not name")


def _changed(folder: Path, files: Sequence[File], on_bytes: Callable[[int], None]) -> list[Difference]:
    def of(some: Sequence[File]) -> list[Difference]:
        found = []
        with Tree(str(folder)) as tree:
            for file in some:
                if tree.sha256(file.path) != file.sha256:
                    found.append(Difference(path=file.path, what="its content is another one"))
                on_bytes(file.size)
        return found

    # The largest first and apart, so that no thread is left with them at the end.
    by_size = sorted(files, key=lambda file: -file.size)
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = [by_size[n : n + _AT_ONCE] for n in range(0, len(by_size), _AT_ONCE)]
        return [one for some in pool.map(of, parts) for one in some]
