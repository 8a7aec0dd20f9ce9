"""Reads requirements locks: what pip-compile, uv and `pip freeze` write, with or without hashes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from provision.environments.lint.conda_formats import file_of
from provision.environments.lint.entries import Index, LockFile, Package, canonical

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(.*)")
_HASH = re.compile(r"--hash[= ]([a-z0-9]+:[0-9A-Za-z]+)")
_INDEX = re.compile(r"(?:-i|--index-url|--extra-index-url|-f|--find-links)[= ]\s*(\S+)")
_EDITABLE = re.compile(r"(?:-e|--editable)[= ]\s*(\S+)")
_ADDRESS = re.compile(r"(?:git\+|hg\+|svn\+|bzr\+|https?:|file:|\.{0,2}/)\S*")
_OWN = "# made from: "


def requirements(path: str, text: str) -> LockFile:
    """A requirements lock. Raises ValueError where a line is of none."""
    pinned: list[Package] = []
    unpinned: list[Package] = []
    indexes: list[Index] = []
    for number, line in _logical(text):
        if found := _INDEX.match(line):
            indexes.append(Index(url=found[1], line=number))
        elif found := _EDITABLE.match(line):
            pinned.append(_from_address("editable", found[1], number, line))
        elif line.startswith("-"):
            if not re.match(r"--?[a-z][a-z-]*(?:[= ]\s*\S+)*$", line):
                raise ValueError(f"line {number} is no requirement")
        else:
            package, is_pinned = _requirement(number, line)
            (pinned if is_pinned else unpinned).append(package)
    return LockFile(
        path=path,
        format="requirements",
        packages=tuple(pinned),
        indexes=tuple(indexes),
        may_name_no_place=text.startswith(_OWN),
        conditional=any(one.marker for one in pinned),
        unpinned=tuple(unpinned),
    )


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, without comments, each with the number of its first."""
    begun = 0
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        body = re.sub(r"(?:^|\s)#.*$", "", line).strip()
        begun = begun if parts else number
        if body.endswith("\\"):
            parts.append(body[:-1].strip())
            continue
        if joined := " ".join([*parts, body]).strip():
            yield begun, joined
        parts = []
    if joined := " ".join(parts).strip():
        yield begun, joined


def _requirement(number: int, line: str) -> tuple[Package, bool]:
    hashes = tuple(_HASH.findall(line))
    words = re.split(r"\s--", line)[0].strip()
    if _ADDRESS.match(words):
        return _from_address(_kind(words), words.split()[0], number, line), True
    found = _PIN.fullmatch(words)
    if found is None:
        raise ValueError(f"line {number} is no requirement")
    name, rest = canonical(found[1]), found[2]
    body, _, marker = rest.partition(";")
    body = body.strip()
    if body.startswith("@"):
        package = _from_address(_kind(body[1:].strip()), body[1:].strip(), number, line)
        return _renamed(package, name, hashes, marker.strip()), True
    if body and not re.match(r"\(?\s*(===?|[<>!~]=?)", body):
        raise ValueError(f"line {number} is no requirement")
    pin = re.fullmatch(r"===?\s*([^\s,*;]+)", body)
    version = pin[1] if pin else body
    return (
        Package(name=name, version=version, hashes=hashes, marker=marker.strip(), line=number),
        pin is not None,
    )


def _kind(address: str) -> str:
    if re.match(r"(git|hg|svn|bzr)\+", address):
        return "git"
    return "url" if address.startswith("http") else "path"


def _from_address(kind: str, address: str, number: int, line: str) -> Package:
    egg = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", address)
    name = canonical(egg[1]) if egg else file_of(address).split("-")[0].lower() or address
    digest = re.search(r"#(?:.*&)?(sha256)=([0-9a-f]+)", address)
    hashes = (*_HASH.findall(line), *([f"{digest[1]}:{digest[2]}"] if digest else []))
    return Package(name=name, url=address, source=kind, files=(file_of(address),), hashes=hashes, line=number)


def _renamed(package: Package, name: str, hashes: tuple[str, ...], marker: str) -> Package:
    wheel = package.files[0].removesuffix(".whl").split("-")
    version = wheel[1] if package.files[0].endswith(".whl") and len(wheel) > 1 else ""
    return Package(
        name=name,
        version=version,
        url=package.url,
        source=package.source,
        files=package.files,
        hashes=hashes or package.hashes,
        marker=marker,
        line=package.line,
    )
