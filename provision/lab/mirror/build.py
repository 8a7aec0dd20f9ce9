"""The lab's mirror: what its nodes install from, as a site behind an air gap has it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from provision.bundle.conda_archive import write_channel
from provision.edges.fetch import fetch, sha256_of, unreachable
from provision.edges.files import write_file
from provision.environments.conda_layer import PLATFORM, CondaLayer, from_conda_lock, render
from provision.environments.conda_lock import solve
from provision.errors import BadInput
from provision.lab.lock import hold
from provision.lab.mirror.apt import build_apt
from provision.lab.mirror.installers import announce, conda_of, installer_in
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of, prune
from provision.lab.mirror.standin.build import build_standin
from provision.lab.mirror.wheels import are_there, build_wheels

_SOLVE_SECONDS = 900.0
_PACKAGE_SECONDS = 300.0
LOCK_NAME = f"conda-{PLATFORM}.lock"


def build_environments(
    workshop: Workshop, files: Mapping[str, Path], *, channel: str, miniconda: Part, with_packages: bool
) -> Part:
    """A lock for each environment in `envs/NAME/`, and `with_packages` what they name in `conda/`, a channel.

    Args:
        files: the environment.yml by the environment's name.
        channel: the address that is solved from; its last part is its name.
        miniconda: the part with the installer of the conda that solves.
    """
    texts = {name: path.read_text() for name, path in files.items()}

    def make(folder: Path) -> None:
        installer = installer_in(miniconda.folder / "miniconda")
        with conda_of(installer, environment=workshop.environment) as conda:
            for name, path in files.items():
                workshop.report(f"lock of the environment {name}")
                layer = solve_layer(path, channel=channel, conda=conda, variables=workshop.environment)
                target = folder / "envs" / name / LOCK_NAME
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(render(layer))
                if with_packages:
                    _fetch(workshop, layer, channel, folder / "conda")

    # The stand-in's channel is named by its folder, which is named by its state.
    return workshop.ensure(
        "environments",
        key_of(channel, miniconda.key, texts),
        kind=Kind.REAL if with_packages else Kind.STAND_IN,
        make=make,
    )


def solve_layer(path: Path, *, channel: str, conda: Path, variables: Mapping[str, str]) -> CondaLayer:
    """Solves an environment.yml with `conda`, and locks the solution.

    Raises:
        CommandFailed: there is no solution, or the channel cannot be reached.
        BadInput: the solution cannot be locked.
    """
    solved = solve(
        path,
        platform=PLATFORM,
        channel=channel,
        conda=conda,
        variables=variables,
        timeout_seconds=_SOLVE_SECONDS,
    )
    return from_conda_lock(solved, channel=channel, environment_yml=path.read_text())


def _fetch(workshop: Workshop, layer: CondaLayer, channel: str, folder: Path) -> None:
    for package in layer.packages:
        workshop.report(package.path)
        target = folder / package.path
        target.parent.mkdir(parents=True, exist_ok=True)
        fetch(f"{channel}/{package.path}", target, sha256=package.sha256, timeout_seconds=_PACKAGE_SECONDS)
    write_channel(folder)


MIRROR_JSON = "mirror.json"
# What each shelf shows of its part's folder; "" is all of it.
_SHELVES = {"miniconda": "miniconda", "conda": "conda", "envs": "envs"}
_WHEELS = "wheels/"  # the shelf of an environment's wheels has its name behind this


def publish(root: Path, shelves: Mapping[str, Part]) -> tuple[Path, Mapping[str, object]]:
    """Makes the mirror of these parts the current one; returns its folder and what mirror.json says."""
    digest = key_of({name: part.folder.name for name, part in shelves.items()})
    folder = root / digest
    folder.mkdir(exist_ok=True)
    for name, part in shelves.items():
        (folder / name).parent.mkdir(exist_ok=True)
        _link(folder / name, part.folder / _SHELVES.get(name, ""))
    contents = {"digest": digest, **describe(folder, shelves)}
    write_file(folder / MIRROR_JSON, json.dumps(contents, indent=2) + "\n")
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
            "kind": Kind.REAL,
            "packages": len({wheel.name for wheel in (folder / "wheels").glob("*/*.whl")}),
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
            lock.parent.name: {
                "conda_lock": str(lock.relative_to(folder)),
                "sha256": sha256_of(lock),
                "wheels": f"{_WHEELS}{lock.parent.name}/simple/",
            }
            for lock in locks
        },
    }


def _link(path: Path, target: Path) -> None:
    """Points `path` at `target` in one step: whoever looks sees the old place or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target if not target.is_absolute() else os.path.relpath(target, path.parent))
    partial.rename(path)


_PROBE_SECONDS = 5.0
_FETCH_SECONDS = 900.0
_LOCK_SECONDS = 900.0
# The wheels that the lab's nodes can use: they have no GPU.
WHEEL_LOCK = "wheels-cpu.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a mirror is to hold: of the environments in this folder those of these names.

    `miniconda` and `channel` are addresses of the real ones, tried once; where one is empty or does not
    answer, a stand-in takes its place.
    """

    environments: Path
    names: Sequence[str]
    debian_packages: Sequence[str]
    newer_than: float
    miniconda: str = ""
    miniconda_sha256: str = ""
    channel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A mirror, made or only planned: its parts, and once it is made its folder and mirror.json."""

    parts: tuple[Part, ...]
    folder: Path | None
    contents: Mapping[str, object]


def build(workshop: Workshop, wanted: Wanted) -> Mirror:
    """Makes what is missing of the mirror and makes it the current one.

    Raises:
        Busy: another process is at it.
        CommandFailed: something cannot be had or made; what is complete is kept for the next run.
    """
    with hold("the mirror", wait_seconds=_LOCK_SECONDS):
        apt = build_apt(workshop, wanted.debian_packages, newer_than=wanted.newer_than)
        wanted = replace(wanted, names=_names(workshop, wanted))
        wheels = {
            f"{_WHEELS}{name}": build_wheels(workshop, name, _wheel_lock(wanted, name))
            for name in wanted.names
        }
        miniconda = _real_miniconda(workshop, wanted) or build_standin(workshop)
        channel = _real_channel(workshop, wanted, miniconda) or _stand_in_channel(workshop, wanted, miniconda)
        shelves = {"apt": apt, **wheels, "miniconda": miniconda, **channel}
        parts = tuple({part.folder: part for part in reversed(shelves.values())}.values())[::-1]
        if workshop.check:
            return Mirror(parts=parts, folder=None, contents={})
        folder, contents = publish(workshop.root, shelves)
        prune(workshop.root, {folder, *(part.folder for part in parts)})
    return Mirror(parts=parts, folder=folder, contents=contents)


def _wheel_lock(wanted: Wanted, name: str) -> Path:
    return wanted.environments / name / WHEEL_LOCK


def _names(workshop: Workshop, wanted: Wanted) -> list[str]:
    """The environments that are asked for, and those here already for which nothing has to be fetched.

    Raises:
        BadInput: one that is asked for has no wheels that the lab's nodes can use.
    """
    known = [path.parent.name for path in wanted.environments.glob(f"*/{WHEEL_LOCK}")]
    for name in wanted.names:
        if name not in known:
            raise BadInput(
                f"mirror the environment {name}",
                found=f"there is no {_wheel_lock(wanted, name)}",
                fix=f"Name one of {', '.join(sorted(known))}, or: provision env lock {name} --kind cpu",
            )
    there = [name for name in known if are_there(workshop, name, _wheel_lock(wanted, name))]
    return sorted({*wanted.names, *there})


def _answers(address: str) -> bool:
    return not unreachable([address], timeout_seconds=_PROBE_SECONDS)


def _real_miniconda(workshop: Workshop, wanted: Wanted) -> Part | None:
    if not wanted.miniconda or not _answers(wanted.miniconda):
        return None
    name = wanted.miniconda.rpartition("/")[2]

    def make(folder: Path) -> None:
        target = folder / "miniconda" / name
        target.parent.mkdir(exist_ok=True)
        fetch(wanted.miniconda, target, sha256=wanted.miniconda_sha256, timeout_seconds=_FETCH_SECONDS)
        announce(target)

    key = key_of(name, wanted.miniconda_sha256)
    return workshop.ensure("miniconda", key, kind=Kind.REAL, make=make)


def _real_channel(workshop: Workshop, wanted: Wanted, miniconda: Part) -> dict[str, Part] | None:
    if not wanted.channel or not _answers(f"{wanted.channel.rstrip('/')}/noarch/repodata.json"):
        return None
    layers = build_environments(
        workshop,
        _environment_files(wanted),
        channel=wanted.channel.rstrip("/"),
        miniconda=miniconda,
        with_packages=True,
    )
    return {"conda": layers, "envs": layers}


def _stand_in_channel(workshop: Workshop, wanted: Wanted, miniconda: Part) -> dict[str, Part]:
    standin = build_standin(workshop)
    layers = build_environments(
        workshop,
        _environment_files(wanted),
        channel=(standin.folder / "conda").as_uri(),
        miniconda=miniconda,
        with_packages=False,
    )
    return {"conda": standin, "envs": layers}


def _environment_files(wanted: Wanted) -> dict[str, Path]:
    return {name: wanted.environments / name / "environment.yml" for name in wanted.names}
