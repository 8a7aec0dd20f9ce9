"""Reads pylock.toml (PEP 751) and uv.lock. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provision.environments.lint.conda_formats import file_of
from provision.environments.lint.entries import Index, LockFile, Package, canonical
from provision.environments.lint.shapes import entries_of, mapping_of, text_of


def pylock(path: str, tree: Mapping[str, Any]) -> LockFile:
    """A pylock.toml. Raises ValueError where it is none."""
    return LockFile(
        path=path,
        format="pylock",
        packages=tuple(_pylock_package(entry) for entry in entries_of(tree, "packages")),
        indexes=_indexes(entry.get("index", "") for entry in entries_of(tree, "packages")),
        conditional=True,
    )


def uv_lock(path: str, tree: Mapping[str, Any]) -> LockFile:
    """A uv.lock. Raises ValueError where it is none."""
    entries = entries_of(tree, "package")
    sources = [mapping_of(entry.get("source") or {}, "source") for entry in entries]
    pairs = zip(entries, sources, strict=True)
    return LockFile(
        path=path,
        format="uv.lock",
        # The project itself is what the lock is of, not a package of it.
        packages=tuple(_uv_package(entry, source) for entry, source in pairs if not _is_project(source)),
        indexes=_indexes(source.get("registry", "") for source in sources),
        conditional=True,
    )


def _is_project(source: Mapping[str, Any]) -> bool:
    return source.get("editable") == "." or "virtual" in source


def _indexes(addresses: Any) -> tuple[Index, ...]:
    return tuple(Index(url=one) for one in sorted({text_of(one, "index") for one in addresses} - {""}))


def _files(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    wheels = entries_of(entry, "wheels")
    others = [entry[key] for key in ("archive", "sdist") if entry.get(key)]
    return wheels or [mapping_of(one, "sdist") for one in others]


def _name(file: Mapping[str, Any]) -> str:
    return text_of(
        file.get("name") or file_of(text_of(file.get("url") or file.get("path") or "", "url")), "file"
    )


def _pylock_package(entry: Mapping[str, Any]) -> Package:
    vcs, folder = entry.get("vcs"), entry.get("directory")
    files = _files(entry)
    hashes = [mapping_of(file.get("hashes") or {}, "hashes") for file in files]
    url = next((text_of(file.get("url", ""), "url") for file in files), "")
    if vcs:
        url = text_of(mapping_of(vcs, "vcs").get("url", ""), "url")
    source = "git" if vcs else "path" if folder else "url" if entry.get("archive") else "index"
    if folder and mapping_of(folder, "directory").get("editable"):
        source = "editable"
    return Package(
        name=canonical(text_of(entry.get("name"), "name")),
        version=text_of(entry.get("version", ""), "version"),
        url=url,
        source=source,
        files=tuple(_name(file) for file in files),
        hashes=tuple(f"{kind}:{value}" for one in hashes for kind, value in one.items()),
        marker=text_of(entry.get("marker", ""), "marker"),
    )


def _uv_package(entry: Mapping[str, Any], source: Mapping[str, Any]) -> Package:
    kinds = {"git": "git", "editable": "editable", "directory": "path", "path": "path", "url": "url"}
    kind = next((said for key, said in kinds.items() if key in source), "index")
    files = _files(entry)
    url = text_of(source.get("git") or source.get("url") or (files[0].get("url", "") if files else ""), "url")
    return Package(
        name=canonical(text_of(entry.get("name"), "name")),
        version=text_of(entry.get("version", ""), "version"),
        url=url,
        source=kind,
        files=tuple(_name(file) for file in files),
        hashes=tuple(text_of(file["hash"], "hash") for file in files if file.get("hash")),
        marker=" or ".join(str(one) for one in entry.get("resolution-markers") or ()),
    )
