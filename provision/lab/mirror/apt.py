"""The mirror's apt repository, as a part that is made anew where packages or their versions changed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from provision.bundle.apt_sources import sources_for
from provision.bundle.deb import ALWAYS, POOL, Deb, parse_stanzas
from provision.bundle.debian import Apt, write_indices
from provision.errors import CommandFailed
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of

_LISTS_AGE_SECONDS = 24 * 3600


def build_apt(workshop: Workshop, names: Sequence[str], *, newer_than: float) -> Part:
    """The repository of `names` and their dependencies, resolved for a machine that has nothing.

    Args:
        newer_than: a time since 1970 in seconds; older lists are fetched anew (a base image that is newer
            than the lists may hold versions that these do not know).
    """
    apt = Apt(state=workshop.root / "apt", sources=(), report=workshop.report)
    if _age(apt.state) > min(_LISTS_AGE_SECONDS, time.time() - newer_than):
        if workshop.check:
            return workshop.ensure("apt", "unresolved", kind=Kind.REAL, make=lambda folder: None)
        _update(apt, workshop.release)
    debs = _resolve(apt, sorted({*names, *ALWAYS}))

    def make(folder: Path) -> None:
        apt.download(debs)
        pool = folder / POOL
        pool.mkdir(exist_ok=True)
        for deb in debs:
            target = pool / deb.file_name
            target.unlink(missing_ok=True)
            os.link(apt.archive(deb), target)
        write_indices(debs, folder, signing=workshop.root / "signing", seconds=time.time())

    key = key_of([deb.fields["SHA256"] for deb in debs], "flat, signed")
    return workshop.ensure("apt", key, kind=Kind.REAL, make=make)


def _stamp(state: Path) -> Path:
    return state / "updated"


def _age(state: Path) -> float:
    """Seconds since the lists were fetched."""
    stamp = _stamp(state)
    return time.time() - stamp.stat().st_mtime if stamp.exists() else float("inf")


def _update(apt: Apt, release: str) -> None:
    why_not = replace(apt, sources=sources_for(release)).update()
    if not why_not:
        _stamp(apt.state).touch()
    elif not _stamp(apt.state).exists():
        raise CommandFailed(
            "fetch Debian's package lists",
            found=why_not,
            fix="Check that `apt-get update` works on this machine.",
        )
    else:
        apt.report("the package lists cannot be fetched; the last ones serve")


def _resolve(apt: Apt, names: Sequence[str]) -> list[Deb]:
    """The packages, as apt chooses them; its answer is kept as long as question and lists are the same."""
    answer = apt.state / f"resolved-{key_of(names, _stamp(apt.state).stat().st_mtime_ns)}"
    if not answer.exists():
        shown = apt.shown(names)
        for old in apt.state.glob("resolved-*"):
            old.unlink()
        answer.write_text(shown)
    return parse_stanzas(answer.read_text())
