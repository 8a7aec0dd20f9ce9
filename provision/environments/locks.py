"""Solves the locks of an environment: its conda layer with conda-lock, its wheels with uv."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision.edges.files import write_file
from provision.edges.process import run
from provision.environments.conda_layer import PLATFORM, from_conda_lock, render
from provision.environments.conda_lock import solve
from provision.errors import BadInput, MissingRequirement

_SOLVE_SECONDS = 1800.0
_WHEEL_PLATFORM = "x86_64-manylinux_2_28"
_SOLVERS = ("conda", "mamba", "micromamba")


class State(StrEnum):
    """How a lock stands to what it is made from."""

    CURRENT = "current"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A lock file, and the files that it is solved from; the first of them is what the solver is given."""

    path: Path
    inputs: tuple[Path, ...]

    @property
    def made_from(self) -> str:
        """Names the state of the inputs: sha256, hex."""
        return hashlib.sha256(b"".join(path.read_bytes() for path in self.inputs)).hexdigest()

    @property
    def state(self) -> State:
        if not self.path.exists():
            return State.MISSING
        return State.CURRENT if self.made_from in self.path.read_text() else State.STALE


def locks_of(folder: Path) -> tuple[Lock, list[Lock]]:
    """The lock of an environment's conda layer, and those of its wheels, one for each wheels-*.in.

    Raises:
        BadInput: the folder holds no environment.
    """
    source = folder / "environment.yml"
    if not source.is_file():
        raise BadInput(
            f"lock the environment {folder.name}",
            found=f"there is no {source}",
            fix=f"Write it, or name one of: {', '.join(sorted(_neighbours(folder))) or 'none yet'}",
        )
    conda = Lock(path=folder / f"conda-{PLATFORM}.lock", inputs=(source,))
    wheels = [
        Lock(path=variant.with_suffix(".lock"), inputs=(variant, folder / "wheels.in"))
        for variant in sorted(folder.glob("wheels-*.in"))
    ]
    return conda, wheels


def _neighbours(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.parent.glob("*/environment.yml")]


def solver_on(path: str) -> Path | None:
    """The conda, mamba or micromamba that a search path has, in this order."""
    found = [program for name in _SOLVERS if (program := shutil.which(name, path=path))]
    return Path(found[0]) if found else None


def lock_conda(lock: Lock, *, channel: str, conda: Path, environment: Mapping[str, str]) -> None:
    """Solves the conda layer from a channel and writes its lock.

    Raises:
        CommandFailed: there is no solution, or the channel cannot be reached.
        BadInput: the solution cannot be locked.
    """
    source = lock.inputs[0]
    solved = solve(
        source,
        platform=PLATFORM,
        channel=channel,
        conda=conda,
        variables=environment,
        timeout_seconds=_SOLVE_SECONDS,
    )
    layer = from_conda_lock(solved, channel=channel, environment_yml=source.read_text())
    write_file(lock.path, render(layer))


def lock_wheels(lock: Lock, *, python: str, environment: Mapping[str, str]) -> None:
    """Solves wheels for Linux and writes their lock: versions and hashes, no place.

    Raises:
        MissingRequirement: there is no uv here.
        CommandFailed: there is no solution, or the index cannot be reached.
    """
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{environment.get('PATH', '')}")
    if uv is None:
        raise MissingRequirement(
            f"lock {lock.path.name}", found="there is no uv", fix=f"{sys.executable} -m pip install uv"
        )
    solved = run(
        uv_words(Path(uv), lock.inputs[0], python=python, find_links=environment.get("PIP_FIND_LINKS", "")),
        timeout_seconds=_SOLVE_SECONDS,
        env=environment,
    )
    write_file(lock.path, f"# made from: {lock.made_from}\n{solved.stdout}")


def uv_words(uv: Path, source: Path, *, python: str, find_links: str) -> list[str]:
    """uv's command line: hashes, and nothing that names a place.

    A folder of wheels is searched only for what pins a local version (torch==2.13.0+cpu): to torch==2.13.0 it
    would offer the CPU build as well.
    """
    searched = find_links.split() if "+" in source.read_text() else []
    places = [word for place in searched for word in ("--find-links", place)]
    return [
        *(str(uv), "pip", "compile", str(source), "--python-version", python),
        *("--python-platform", _WHEEL_PLATFORM, "--generate-hashes", "--no-header", "--no-annotate"),
        *("--no-emit-index-url", "--no-emit-find-links", "--quiet"),
        *places,
    ]
