"""What a bundle holds: one canonical text, `bundle.json`, with the sha256 of every other file. Pure.

The digest of a bundle is the sha256 of that text. A text comes from elsewhere: nothing of it counts that is
not exactly what `text_of` would write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from provision.errors import BadInput
from provision.store.node.manifest import MOST_BYTES, BadManifest, is_digest, refuse_bad_path, values_of

MANIFEST = "bundle.json"
_VERSION = 1
_MOST_SAID = 200
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a bundle: its path, bytes and sha256 (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A bundle: for which site it was made, in words, and its files, sorted by their paths."""

    made_for: Mapping[str, str]
    files: Sequence[File]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def contents_of(made_for: Mapping[str, str], files: Iterable[File]) -> Contents:
    """The contents, in their order."""
    return Contents(made_for=made_for, files=tuple(sorted(files, key=lambda file: file.path)))


def text_of(contents: Contents) -> bytes:
    """The one text of a bundle, in ASCII."""
    files = [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in contents.files]
    told = {"version": _VERSION, "made_for": dict(contents.made_for), "files": files}
    return f"{json.dumps(told, sort_keys=True, indent=0)}\n".encode("ascii")


def parse(text: bytes, *, name: str) -> Contents:
    """The contents that a text from elsewhere states.

    Args:
        name: of the text, for people.

    Raises:
        BadInput: it states none, or files that would not lie in the bundle's own folder.
    """
    try:
        return _parsed(text)
    except BadManifest as e:
        fix = "Copy the bundle again from where it was made, or make it anew: provision bundle create"
        raise BadInput(f"read {name}", found=str(e), fix=fix) from e


def _parsed(text: bytes) -> Contents:
    found = values_of(text)
    if not isinstance(found, dict) or set(found) != {"version", "made_for", "files"}:
        _refuse("it has other parts than version, made_for and files")
    if found["version"] != _VERSION:
        _refuse(f"it is of version {ascii(found['version'])[:_SHOWN]}, and {_VERSION} is read here")
    made_for, files = found["made_for"], found["files"]
    if not isinstance(made_for, dict) or not all(_is_said(value) for value in made_for.values()):
        _refuse("it does not say in words for which site it was made")
    if not isinstance(files, list):
        _refuse("its files are no list")
    contents = Contents(made_for=made_for, files=tuple(_file(one) for one in files))
    _refuse_places([file.path for file in contents.files])
    # What was said twice or spelt otherwise would be another bundle with the same files.
    if text_of(contents) != text:
        _refuse("it is not written as it has to be")
    return contents


def _is_said(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_SAID and value.isprintable()


def _file(found: object) -> File:
    if not isinstance(found, dict) or set(found) != {"path", "size", "sha256"}:
        _refuse("a file has other parts than path, size and sha256")
    path, size, sha256 = found["path"], found["size"], found["sha256"]
    if not isinstance(path, str):
        _refuse(f"a path is {ascii(path)[:_SHOWN]}, no text")
    if type(size) is not int or not 0 <= size <= MOST_BYTES:
        _refuse(f"a file has the size {ascii(size)[:_SHOWN]}")
    if not is_digest(sha256):
        _refuse(f"{ascii(sha256)[:_SHOWN]} is no sha256")
    return File(path=path, size=size, sha256=sha256)


def _refuse_places(paths: Sequence[str]) -> None:
    known = set(paths)
    for path in paths:
        refuse_bad_path(path)
        parts = path.split("/")
        if above := next((one for n in range(1, len(parts)) if (one := "/".join(parts[:n])) in known), None):
            _refuse(f"{ascii(path)[:_SHOWN]} lies below {ascii(above)[:_SHOWN]}, which is a file")
    if MANIFEST in known:
        _refuse(f"it names {MANIFEST}, which is itself")
    if list(paths) != sorted(known):
        _refuse("its files are not sorted, or one is there twice")


def _refuse(found: str) -> NoReturn:
    raise BadManifest(found)
