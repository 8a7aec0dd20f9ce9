"""Reads locks of conda packages: conda-lock's (format 1), explicit ones, and the project's own. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from provision.environments.lint.entries import CONDA, PIP, Index, LockFile, Package, canonical
from provision.environments.lint.shapes import entries_of, mapping_of, text_of, texts_of

_OWN = re.compile(r"# platform: (\S+)$", re.MULTILINE)
_FILE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+)\.(?:conda|tar\.bz2)")
_PLATFORM = re.compile(r"# platform: ([a-z0-9-]+)")


def conda_lock(path: str, tree: Mapping[str, Any]) -> LockFile:
    """A conda-lock.yml. Raises ValueError where it is none."""
    meta = mapping_of(tree.get("metadata", {}), "metadata")
    hashed = meta.get("content_hash")
    custom = mapping_of(meta.get("custom_metadata") or {}, "custom_metadata")
    channels = [
        text_of(one.get("url", "") if isinstance(one, dict) else one, "channel")
        for one in meta.get("channels") or ()
    ]
    return LockFile(
        path=path,
        format="conda-lock",
        packages=tuple(_locked(entry) for entry in entries_of(tree, "package")),
        indexes=tuple(Index(url=channel) for channel in channels),
        platforms=tuple(texts_of(meta.get("platforms") or (), "platforms")),
        hashed_platforms=tuple(str(key) for key in hashed) if isinstance(hashed, dict) else (),
        records_virtual=any("virtual" in str(key) for key in custom),
    )


def _locked(entry: Mapping[str, Any]) -> Package:
    name, url = text_of(entry.get("name"), "name"), text_of(entry.get("url", ""), "url")
    manager = text_of(entry.get("manager", ""), "manager")
    if manager not in (CONDA, PIP):
        raise ValueError(f"package {name!r} is of manager {manager!r}")
    hashes = mapping_of(entry.get("hash") or {}, "hash")
    needs = mapping_of(entry.get("dependencies") or {}, "dependencies")
    source = mapping_of(entry.get("source") or {}, "source")
    return Package(
        name=canonical(name) if manager == PIP else name,
        version=text_of(entry.get("version"), "version"),
        manager=manager,
        platform=text_of(entry.get("platform", ""), "platform"),
        url=url,
        source=_source(url, text_of(source.get("type", ""), "source")),
        files=(file_of(url),),
        hashes=tuple(f"{kind}:{value}" for kind, value in hashes.items() if value),
        needs={str(key): str(value) for key, value in needs.items()},
        category=text_of(entry.get("category", ""), "category"),
    )


def _source(url: str, declared: str) -> str:
    if declared in ("git", "path") or url.startswith("git+"):
        return "path" if declared == "path" else "git"
    return "path" if url.startswith(("file:", "/", ".")) else "index"


def file_of(url: str) -> str:
    """The name of the file that an address ends with."""
    return url.partition("#")[0].partition("?")[0].rpartition("/")[2].replace("%2B", "+").replace("%2b", "+")


def explicit(path: str, text: str) -> LockFile:
    """An explicit lock (@EXPLICIT), or the project's own conda-*.lock."""
    own = "@EXPLICIT" not in text
    platform = _PLATFORM.search(text)
    packages = tuple(_lines(text))
    return LockFile(
        path=path,
        format="conda layer" if own else "explicit",
        packages=packages,
        platforms=(platform[1],) if platform else tuple({one.platform for one in packages}),
        may_name_no_place=own,
    )


def _lines(text: str) -> Iterator[Package]:
    header = _PLATFORM.search(text)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    addresses = [(n, line) for n, line in lines if line and not line.startswith(("#", "@EXPLICIT"))]
    subdirs = {line.partition("#")[0].rsplit("/", 2)[-2] for _, line in addresses if "/" in line} - {"noarch"}
    platform = header[1] if header else min(subdirs, default="")
    for number, line in addresses:
        url, _, digest = line.partition("#")
        parsed = _FILE.fullmatch(file_of(url))
        if parsed is None:
            raise ValueError(f"line {number} names no conda package")
        kind, _, value = digest.rpartition(":")
        hashes = (f"{kind or 'md5'}:{value}",) if value else ()
        yield Package(
            name=parsed["name"],
            version=parsed["version"],
            manager=CONDA,
            platform=platform,
            url=url,
            source="path" if url.startswith(("file:", "/", ".")) else "index",
            files=(file_of(url),),
            hashes=hashes,
            line=number,
        )
