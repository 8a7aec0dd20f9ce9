"""Puts the parts of a mirror on shelves, says in mirror.json what is there, and makes it the current one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from provision.edges.fetch import sha256_of
from provision.lab.mirror.installers import installer_in
from provision.lab.mirror.parts import Part, key_of

MIRROR_JSON = "mirror.json"
# What each shelf shows of its part's folder; "" is all of it.
_SHELVES = {"apt": "", "wheels": "", "miniconda": "miniconda", "conda": "conda", "envs": "envs"}


def publish(root: Path, shelves: Mapping[str, Part]) -> tuple[Path, Mapping[str, object]]:
    """Makes the mirror of these parts the current one; returns its folder and what mirror.json says."""
    digest = key_of({name: part.folder.name for name, part in shelves.items()})
    folder = root / digest
    folder.mkdir(exist_ok=True)
    for name, part in shelves.items():
        _link(folder / name, part.folder / _SHELVES[name])
    contents = {"digest": digest, **describe(folder, shelves)}
    text = json.dumps(contents, indent=2) + "\n"
    partial = folder / f"{MIRROR_JSON}.partial"
    partial.write_text(text)
    partial.rename(folder / MIRROR_JSON)
    _link(root / "current", Path(digest))
    return folder, contents


def describe(folder: Path, shelves: Mapping[str, Part]) -> dict[str, object]:
    """What lies on each shelf: its kind, the paths that an inventory needs, and digests."""
    installer = installer_in(folder / "miniconda")
    locks = sorted((folder / "envs").glob("*/*.lock"))
    return {
        "apt": {
            "kind": shelves["apt"].kind,
            "suite": "./",
            "key": "apt/key.asc",
            "packages": len(list((folder / "apt" / "pool").iterdir())),
            "release_sha256": sha256_of(folder / "apt" / "Release"),
        },
        "wheels": {
            "kind": shelves["wheels"].kind,
            "index": "wheels/simple/",
            "packages": len(list((folder / "wheels").glob("*.whl"))),
        },
        "conda": {
            "kind": shelves["conda"].kind,
            "channel": "conda",
            "packages": len(list((folder / "conda").glob("*/*.conda"))),
            "repodata_sha256": sha256_of(folder / "conda" / "linux-64" / "repodata.json"),
        },
        "miniconda": {
            "kind": shelves["miniconda"].kind,
            "installer": f"miniconda/{installer.name}",
            "sha256": sha256_of(installer),
        },
        "environments": {
            lock.parent.name: {"conda_lock": str(lock.relative_to(folder)), "sha256": sha256_of(lock)}
            for lock in locks
        },
    }


def _link(path: Path, target: Path) -> None:
    """Points `path` at `target` in one step: whoever looks sees the old place or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target if not target.is_absolute() else os.path.relpath(target, path.parent))
    partial.rename(path)
