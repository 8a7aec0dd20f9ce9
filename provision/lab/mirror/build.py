"""The lab's mirror: what its nodes install from, as a site behind an air gap has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision.edges.fetch import fetch
from provision.edges.http import unreachable
from provision.lab.lock import hold
from provision.lab.mirror.apt import build_apt
from provision.lab.mirror.environments import build_environments
from provision.lab.mirror.installers import announce
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of, prune
from provision.lab.mirror.publish import publish
from provision.lab.mirror.standin.build import build_standin
from provision.lab.mirror.wheels import build_wheels

_PROBE_SECONDS = 5.0
_FETCH_SECONDS = 900.0
_LOCK_SECONDS = 900.0
# The wheels that the lab's nodes can use: they have no GPU.
ENVIRONMENT, WHEEL_LOCK = "llm", "wheels-cpu.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a mirror is to hold.

    `miniconda` and `channel` are addresses of the real ones, tried once; where one is empty or does not
    answer, a stand-in takes its place.
    """

    environments: Path
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
        wheels = build_wheels(workshop, wanted.environments / ENVIRONMENT / WHEEL_LOCK)
        miniconda = _real_miniconda(workshop, wanted) or build_standin(workshop)
        channel = _real_channel(workshop, wanted, miniconda) or _stand_in_channel(workshop, wanted, miniconda)
        shelves = {"apt": apt, "wheels": wheels, "miniconda": miniconda, **channel}
        parts = tuple({part.folder: part for part in reversed(shelves.values())}.values())[::-1]
        if workshop.check:
            return Mirror(parts=parts, folder=None, contents={})
        folder, contents = publish(workshop.root, shelves)
        prune(workshop.root, {folder, *(part.folder for part in parts)})
    return Mirror(parts=parts, folder=folder, contents=contents)


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
    return {path.parent.name: path for path in sorted(wanted.environments.glob("*/environment.yml"))}
