"""Solves the locks of an environment: its conda layer with conda-lock, its wheels with uv."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from provision.edges.files import write_file
from provision.edges.process import run
from provision.environments.conda_layer import PLATFORMS, channel_name, from_conda_lock, parse, render
from provision.environments.conda_lock import solve
from provision.errors import BadInput, CommandFailed, MissingRequirement

_SOLVE_SECONDS = 1800.0
_SOLVERS = ("conda", "mamba", "micromamba")


_USUAL = "x86_64"  # whose locks have no suffix


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
    architecture: str = _USUAL

    @property
    def made_from(self) -> str:
        """Names the state of the inputs: sha256, hex."""
        return hashlib.sha256(b"".join(path.read_bytes() for path in self.inputs)).hexdigest()

    @property
    def state(self) -> State:
        if not self.path.exists():
            return State.MISSING
        return State.CURRENT if self.made_from in self.path.read_text() else State.STALE


def locks_of(folder: Path, architecture: str = _USUAL) -> tuple[Lock, list[Lock]]:
    """The lock of an environment's conda layer, and those of its wheels, one for each wheels-*.in.

    Raises:
        BadInput: the folder holds no environment, or there are no such processors.
    """
    if architecture not in PLATFORMS:
        fix = f"Name one of: {', '.join(PLATFORMS)}"
        raise BadInput(f"lock for {architecture}", found="there are no locks for these processors", fix=fix)
    source = folder / "environment.yml"
    if not source.is_file():
        raise BadInput(
            f"lock the environment {folder.name}",
            found=f"there is no {source}",
            fix=f"Write it, or name one of: {', '.join(sorted(_neighbours(folder))) or 'none yet'}",
        )
    conda_path = folder / f"conda-{PLATFORMS[architecture]}.lock"
    conda = Lock(path=conda_path, inputs=(source,), architecture=architecture)
    suffix = "" if architecture == _USUAL else f"-{architecture}"
    wheels = [
        Lock(
            path=variant.with_name(f"{variant.stem}{suffix}.lock"),
            inputs=(variant, folder / "wheels.in"),
            architecture=architecture,
        )
        for variant in sorted(folder.glob("wheels-*.in"))
    ]
    return conda, wheels


def _neighbours(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.parent.glob("*/environment.yml")]


def is_current(lock: Lock, *, channel: str | None) -> bool:
    """Whether a lock is solved from its present inputs; `channel`: and for this one, of a conda layer."""
    if lock.state is not State.CURRENT:
        return False
    return channel is None or parse(lock.path.read_text()).channel == channel_name(channel)


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
        platform=PLATFORMS[lock.architecture],
        channel=channel,
        conda=conda,
        variables=environment,
        timeout_seconds=_SOLVE_SECONDS,
    )
    layer = from_conda_lock(
        solved,
        channel=channel,
        environment_yml=source.read_text(),
        platform=PLATFORMS[lock.architecture],
    )
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
    words = uv_words(
        Path(uv),
        lock.inputs[0],
        python=python,
        find_links=environment.get("PIP_FIND_LINKS", ""),
        architecture=lock.architecture,
    )
    files = _solved([*words, "--format", "pylock.toml"], lock, environment)
    if archives := without_wheel(tomllib.loads(files), lock.architecture):
        raise BadInput(
            f"lock {lock.path.name}",
            found=f"there is no wheel of {', '.join(archives)} for Linux, only an archive of sources, which "
            "nodes do not build",
            fix="Take it out of wheels.in (the runtime reads DeepSpeed's configuration and checkpoints "
            "without it). Else build a wheel once, `pip wheel --no-deps NAME==VERSION`, put it into an index "
            "of yours, solve with UV_DEFAULT_INDEX set to that, and set conda_env_wheel_source to it.",
        )
    solved = _solved(words, lock, environment)
    write_file(lock.path, f"# made from: {lock.made_from}\n{solved}")


def _solved(words: Sequence[str], lock: Lock, environment: Mapping[str, str]) -> str:
    finished = run(words, timeout_seconds=_SOLVE_SECONDS, env=environment, check=False)
    if finished.returncode == 0:
        return finished.stdout
    local = [line for line in lock.inputs[0].read_text().splitlines() if "+" in line.partition("#")[0]]
    fix = "Correct wheels.in, or see that the index of Python packages can be reached."
    if local:
        fix = (
            f"{', '.join(local)} is a build that the index of Python packages lacks: name a folder that has "
            "it in PIP_FIND_LINKS, or leave this lock out, which is for the lab alone: --kind cuda."
        )
    said = "\n".join(finished.stderr.strip().splitlines()[-12:])
    raise CommandFailed(
        f"solve {lock.inputs[0]}", found=said or f"uv ended with {finished.returncode}", fix=fix
    )


def without_wheel(pylock: Mapping[str, Any], architecture: str = _USUAL) -> list[str]:
    """The packages of a solution (pylock.toml, PEP 751) that have no wheel which Linux can use."""
    return [
        f"{package['name']} {package.get('version', '')}".strip()
        for package in pylock.get("packages", ())
        if not any(_is_for_linux(wheel, architecture) for wheel in package.get("wheels", ()))
        and ("sdist" in package or "wheels" in package)
    ]


def _is_for_linux(wheel: Mapping[str, Any], architecture: str) -> bool:
    name = str(wheel.get("name") or wheel.get("url") or wheel.get("path") or "").rpartition("/")[2]
    platform = name.removesuffix(".whl").rpartition("-")[2]
    return platform == "any" or ("linux" in platform and architecture in platform)


def uv_words(
    uv: Path, source: Path, *, python: str, find_links: str, architecture: str = _USUAL
) -> list[str]:
    """uv's command line: hashes, and nothing that names a place.

    A folder of wheels is searched only for what pins a local version (torch==2.13.0+cpu): to torch==2.13.0 it
    would offer the CPU build as well.
    """
    searched = find_links.split() if "+" in source.read_text() else []
    places = [word for place in searched for word in ("--find-links", place)]
    return [
        *(str(uv), "pip", "compile", str(source), "--python-version", python),
        *(
            "--python-platform",
            f"{architecture}-manylinux_2_28",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
        ),
        *("--no-emit-index-url", "--no-emit-find-links", "--quiet"),
        *places,
    ]
