"""Writes conda packages (format 2, `.conda`) and the channel that holds them.

Source: conda's package specification (CEP 24 and the page "Conda packages"), CEP 36 for repodata.json.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

# Stands in a package's text files for the path of the environment to be; conda replaces it on installation.
PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
SUBDIR = "linux-64"
# Level 9 makes the packages 8 % smaller and takes four times as long.
_LEVEL = 3
# The zip and tar formats carry dates; a fixed one keeps equal content equal.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaIndex:
    """What a package says of itself, and what it needs (conda's match specifications)."""

    name: str
    version: str
    depends: tuple[str, ...]
    license: str
    build: str = "0"

    @property
    def dist(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    def as_json(self) -> dict[str, object]:
        return {
            "arch": "x86_64",
            "build": self.build,
            "build_number": 0,
            "depends": list(self.depends),
            "license": self.license,
            "name": self.name,
            "platform": "linux",
            "subdir": SUBDIR,
            "version": self.version,
        }


def describe(tree: Path, index: CondaIndex) -> None:
    """Writes `tree`/info: what the package is, and each of its files with size and sha256."""
    paths = [_path_entry(path, tree) for path in _files(tree) if path.relative_to(tree).parts[0] != "info"]
    info = tree / "info"
    info.mkdir(exist_ok=True)
    _write_json(info / "index.json", index.as_json())
    _write_json(info / "paths.json", {"paths": paths, "paths_version": 1})
    (info / "files").write_text("".join(f"{entry['_path']}\n" for entry in paths))


def pack(tree: Path, index: CondaIndex, folder: Path) -> Path:
    """Packs a described tree into `folder`; returns the file."""
    target = folder / f"{index.dist}.conda"
    content = [path for path in _files(tree) if path.relative_to(tree).parts[0] != "info"]
    info = _files(tree / "info")
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        members = {
            "metadata.json": json.dumps({"conda_pkg_format_version": 2}).encode(),
            f"pkg-{index.dist}.tar.zst": _tar_zst(tree, content),
            f"info-{index.dist}.tar.zst": _tar_zst(tree, info),
        }
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), data)
    partial.rename(target)
    return target


def repodata(packages: Iterable[Path], subdir: str) -> dict[str, object]:
    """The index of a channel's folder (repodata.json) over its packages."""
    found = {path.name: {**read_index(path), **digests(path)} for path in sorted(packages)}
    return {
        "info": {"subdir": subdir},
        "packages": {},
        "packages.conda": found,
        "removed": [],
        "repodata_version": 1,
    }


def write_channel(folder: Path, *, subdirs: Sequence[str] = (SUBDIR, "noarch")) -> None:
    """Writes repodata.json beside the packages of each of a channel's folders."""
    for subdir in subdirs:
        place = folder / subdir
        place.mkdir(parents=True, exist_ok=True)
        _write_json(place / "repodata.json", repodata(place.glob("*.conda"), subdir))


def read_index(package: Path) -> dict[str, object]:
    """What a `.conda` file says of itself (its info/index.json)."""
    with zipfile.ZipFile(package) as archive:
        name = next(name for name in archive.namelist() if name.startswith("info-"))
        data = zstandard.ZstdDecompressor().stream_reader(archive.read(name)).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as info:
        member = info.extractfile("info/index.json")
        assert member is not None
        loaded: dict[str, object] = json.load(member)
        return loaded


def digests(path: Path) -> dict[str, object]:
    """Size in bytes, md5 and sha256 (hex): what a channel says of a file."""
    content = path.read_bytes()
    return {
        "size": len(content),
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _files(tree: Path) -> list[Path]:
    """Files and links below a folder, sorted; links are not followed."""
    found = []
    for folder, names, files in os.walk(tree):
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        found += [Path(folder) / name for name in (*files, *links)]
    return sorted(found)


def _path_entry(path: Path, tree: Path) -> Mapping[str, object]:
    name = str(path.relative_to(tree))
    if path.is_symlink():
        return {"_path": name, "path_type": "softlink"}
    content = path.read_bytes()
    entry = {
        "_path": name,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_in_bytes": len(content),
    }
    if PLACEHOLDER.encode() in content and b"\0" not in content:
        return {**entry, "file_mode": "text", "prefix_placeholder": PLACEHOLDER}
    return entry


def _tar_zst(tree: Path, paths: Sequence[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            archive.add(path, str(path.relative_to(tree)), recursive=False, filter=_plain)
    return zstandard.ZstdCompressor(level=_LEVEL, threads=-1).compress(buffer.getvalue())


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and date: they are those of the machine that packed."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    if member.islnk():
        raise AssertionError("a package's tree holds no hard links")
    return member


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
