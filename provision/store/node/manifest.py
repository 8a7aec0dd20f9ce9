"""What a tree is: one canonical text of its files in groups, and the chunks that these are sent in. Pure.

A group is what changes together: a package of an environment, a file of a model. The contents of its files,
in their order, are cut at 4 MiB; so a changed package changes the chunks of its group alone. The digest of a
tree is the SHA-256 of its text, which holds no times. A text comes from elsewhere: nothing of it counts that
is not exactly what `text_of` would write.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, NoReturn, Sequence

CHUNK_BYTES = 4 << 20
KINDS = ("environment", "model")
MOST_TEXT_BYTES = 64 << 20
MOST_ENTRIES = 500_000
MOST_PATH_BYTES, MOST_PART_BYTES, MOST_PARTS = 1024, 255, 64
MOST_BYTES = 1 << 44  # of a tree: 16 TiB
_VERSION = 1
_MODES = {"0644": 0o644, "0755": 0o755}
_SHA256 = re.compile("[0-9a-f]{64}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHOWN = 80


class BadManifest(ValueError):
    """A text that is no manifest, and why."""


@dataclass(frozen=True)
class File:
    """A file: its path in the tree, bytes, mode (0o644 or 0o755) and SHA-256."""

    path: str
    size: int
    mode: int
    sha256: str


@dataclass(frozen=True)
class Link:
    """A symbolic link; its target is relative and in the tree."""

    path: str
    target: str


@dataclass(frozen=True)
class Group:
    """What changes together. `chunks` are the SHA-256 of its files' contents in a row, cut at CHUNK_BYTES."""

    name: str
    files: tuple[File, ...]
    links: tuple[Link, ...]
    folders: tuple[str, ...]  # empty ones; the others are there by their files
    chunks: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A piece of a file that a chunk consists of, in the order of the chunk."""

    file: File
    offset: int
    size: int


@dataclass(frozen=True)
class Chunk:
    """A chunk by its number in the tree."""

    sha256: str
    size: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Manifest:
    """A tree. `chunks` and `bytes` follow from its groups."""

    kind: str
    groups: tuple[Group, ...]
    chunks: tuple[Chunk, ...] = field(init=False, compare=False, repr=False)
    bytes: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunks", tuple(c for group in self.groups for c in _chunks_of(group)))
        object.__setattr__(self, "bytes", sum(chunk.size for chunk in self.chunks))

    @property
    def files(self) -> Iterator[File]:
        return (file for group in self.groups for file in group.files)

    @property
    def links(self) -> Iterator[Link]:
        return (link for group in self.groups for link in group.links)

    @property
    def folders(self) -> Iterator[str]:
        return (folder for group in self.groups for folder in group.folders)


def is_name(text: object) -> bool:
    """Whether something may be called so: it is part of paths, and of no other folder's."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_digest(text: object) -> bool:
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def text_of(manifest: Manifest) -> bytes:
    """The one text of a tree, in ASCII."""
    return _canonical(
        {
            "version": _VERSION,
            "kind": manifest.kind,
            "groups": [
                {
                    "name": group.name,
                    "files": [
                        {"path": f.path, "size": f.size, "mode": f"{f.mode:04o}", "sha256": f.sha256}
                        for f in group.files
                    ],
                    "links": [{"path": link.path, "target": link.target} for link in group.links],
                    "folders": list(group.folders),
                    "chunks": list(group.chunks),
                }
                for group in manifest.groups
            ],
        }
    )


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def values_of(text: bytes) -> object:
    """What the JSON of a manifest says.

    Raises:
        BadManifest: it is too large, or no JSON in ASCII.
    """
    if len(text) > MOST_TEXT_BYTES:
        _refuse(f"it has {len(text)} bytes; {MOST_TEXT_BYTES} are allowed")
    try:
        return json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as e:
        raise BadManifest(f"it is no JSON in ASCII ({type(e).__name__})") from e


def parse(text: bytes) -> Manifest:
    """A manifest from elsewhere.

    Raises:
        BadManifest: it is none, or a tree of it would not lie in its own folder, as files, folders and links.
    """
    top = _fields(values_of(text), ("version", "kind", "groups"), "the manifest")
    if top["version"] != _VERSION or top["kind"] not in KINDS:
        _refuse(f"it is of version {_shown(top['version'])} and kind {_shown(top['kind'])}")
    manifest = Manifest(
        kind=top["kind"], groups=tuple(_group(one) for one in _listed(top["groups"], "groups"))
    )
    refuse_bad_paths(manifest)
    # What was left out, said twice or spelt otherwise would be another tree with the same files.
    if text_of(manifest) != text:
        _refuse("it is not written as it has to be")
    return manifest


def refuse_bad_paths(manifest: Manifest) -> None:
    """Raises:
    BadManifest: two things have one place, something is below a file or a link, or there is too much.
    """
    leaves: dict[str, str] = {}
    entries = 0
    for group in manifest.groups:
        for kind, paths in (
            ("file", [file.path for file in group.files]),
            ("link", [link.path for link in group.links]),
            ("folder", list(group.folders)),
        ):
            if any(first >= second for first, second in zip(paths, paths[1:])):
                _refuse(f"the {kind}s of {_shown(group.name)} are not sorted, or one is there twice")
            entries += len(paths)
            for path in paths:
                refuse_bad_path(path)
                if path in leaves:
                    _refuse(f"{_shown(path)} is there twice")
                leaves[path] = kind
    if entries > MOST_ENTRIES:
        _refuse(f"it has {entries} files, links and folders; {MOST_ENTRIES} are allowed")
    names = [group.name for group in manifest.groups]
    if any(first >= second for first, second in zip(names, names[1:])):
        _refuse("its groups are not sorted, or one is there twice")
    if manifest.bytes > MOST_BYTES:
        _refuse(f"it has {manifest.bytes} bytes; {MOST_BYTES} are allowed")
    for path in leaves:
        above = next((folder for folder in _above(path) if folder in leaves), None)
        if above is not None:
            _refuse(f"{_shown(path)} lies below {_shown(above)}, which is a {leaves[above]}")
    for link in manifest.links:
        refuse_bad_target(link)
    if manifest.kind == "model":
        _refuse_same_but_for_case(leaves)


def refuse_bad_path(path: str) -> None:
    """Raises:
    BadManifest: it does not name a place in a tree, or not in one way alone.
    """
    parts = path.split("/")
    if _CONTROL.search(path) or any(part in ("", ".", "..") for part in parts):
        _refuse(f"{_shown(path)} is no path in a tree")
    if len(path.encode()) > MOST_PATH_BYTES or len(parts) > MOST_PARTS:
        _refuse(f"{_shown(path)} is longer or deeper than is allowed")
    if any(len(part.encode()) > MOST_PART_BYTES for part in parts):
        _refuse(f"a name in {_shown(path)} is longer than is allowed")


def refuse_bad_target(link: Link) -> None:
    """Steps up come first, and no more than the link is deep: through other links it stays in the tree, too.

    Raises:
        BadManifest: the link leads out of the tree, or may.
    """
    parts = link.target.split("/")
    up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    rest = parts[up:]
    if (
        any(part in ("", ".", "..") for part in rest)
        or up > link.path.count("/")
        or _CONTROL.search(link.target)
        or len(link.target.encode()) > MOST_PATH_BYTES
    ):
        _refuse(f"the link {_shown(link.path)} leads to {_shown(link.target)}, which is not in its tree")


def _refuse_same_but_for_case(paths: Mapping[str, str]) -> None:
    """A model is copied to machines that take both for one; environments do have such files (terminfo)."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            _refuse(f"{_shown(path)} and {_shown(other)} differ in upper and lower case alone")


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _group(found: object) -> Group:
    group = _fields(found, ("name", "files", "links", "folders", "chunks"), "a group")
    name = _text(group["name"], "a group's name")
    refuse_bad_path(name)
    files = tuple(_file(one) for one in _listed(group["files"], "files"))
    links = tuple(_link(one) for one in _listed(group["links"], "links"))
    folders = tuple(_text(one, "a folder") for one in _listed(group["folders"], "folders"))
    chunks = tuple(_hash(one) for one in _listed(group["chunks"], "chunks"))
    wanted = chunk_count(sum(file.size for file in files))
    if len(chunks) != wanted:
        _refuse(f"the group {_shown(name)} has {len(chunks)} chunks; its files make {wanted}")
    return Group(name=name, files=files, links=links, folders=folders, chunks=chunks)


def chunk_count(size: int) -> int:
    return -(-size // CHUNK_BYTES)


def _file(found: object) -> File:
    file = _fields(found, ("path", "size", "mode", "sha256"), "a file")
    size, mode = file["size"], file["mode"]
    if type(size) is not int or not 0 <= size <= MOST_BYTES:
        _refuse(f"a file has the size {_shown(size)}")
    if not isinstance(mode, str) or mode not in _MODES:
        _refuse(f"a file has the mode {_shown(mode)}; 0644 and 0755 are allowed")
    return File(
        path=_text(file["path"], "a path"), size=size, mode=_MODES[mode], sha256=_hash(file["sha256"])
    )


def _link(found: object) -> Link:
    link = _fields(found, ("path", "target"), "a link")
    return Link(path=_text(link["path"], "a path"), target=_text(link["target"], "a link's target"))


def _chunks_of(group: Group) -> Iterator[Chunk]:
    """A group's chunks with the pieces of files that they consist of."""
    left = deque((file, 0) for file in group.files if file.size)
    for sha256 in group.chunks:
        parts: list[Part] = []
        size = 0
        while left and size < CHUNK_BYTES:
            file, offset = left.popleft()
            taken = min(file.size - offset, CHUNK_BYTES - size)
            parts.append(Part(file, offset, taken))
            size += taken
            if offset + taken < file.size:
                left.appendleft((file, offset + taken))
        yield Chunk(sha256, size, tuple(parts))


def _fields(found: object, names: Sequence[str], what: str) -> dict[str, Any]:
    if not isinstance(found, dict) or set(found) != set(names):
        _refuse(f"{what} has other parts than {', '.join(names)}")
    return found


def _listed(found: object, what: str) -> list[Any]:
    if not isinstance(found, list) or len(found) > 2 * MOST_ENTRIES:
        _refuse(f"its {what} are no list, or too many")
    return found


def _text(found: object, what: str) -> str:
    if not isinstance(found, str):
        _refuse(f"{what} is {_shown(found)}, no text")
    return found


def _hash(found: object) -> str:
    if not isinstance(found, str) or not _SHA256.fullmatch(found):
        _refuse(f"{_shown(found)} is no SHA-256")
    return found


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _shown(value: object) -> str:
    return ascii(value)[:_SHOWN]


def _refuse(found: str) -> NoReturn:
    raise BadManifest(found)
