"""Solves the locks of an environment: its conda layer with conda-lock, its wheels with uv."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision.edges.files import write_file
from provision.edges.process import run
from provision.environments.conda_layer import PLATFORMS, channel_name, from_conda_lock, parse
from provision.environments.conda_layer import render as render_layer
from provision.environments.conda_lock import solve
from provision.environments.kinds import wheels_name
from provision.environments.sources import archive_of, needs_of, uv_on
from provision.environments.wheel_inputs import (
    from_source,
    included,
    left_out,
    local_builds,
    own_index,
    solved_until,
)
from provision.environments.wheel_lock import WITHOUT_WHEEL, platform_of, refuse_sources, render
from provision.errors import BadInput, CommandFailed, MissingRequirement

_SOLVE_SECONDS = 1800.0
_SOLVERS = ("conda", "mamba", "micromamba")
# By these, uv would solve the same inputs otherwise for one person than for another.
_CHOOSING = {
    *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_TORCH_BACKEND"),
    *("UV_RESOLUTION", "UV_PRERELEASE", "UV_EXCLUDE_NEWER"),
}


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
    def kind(self) -> str:
        """Which machines its wheels are for, as `cuda130`."""
        return self.inputs[0].stem.removeprefix("wheels-")

    @property
    def texts(self) -> list[str]:
        return [path.read_text("utf-8") for path in self.inputs]

    def lacks_build(self, find_links: str) -> bool:
        """Whether only PyTorch's own index has its build of torch, and none of these folders."""
        names = [build.replace("==", "-") for build in local_builds(self.texts)]
        folders = [Path(place) for place in find_links.split()]
        held = all(any(any(folder.glob(f"{name}-*.whl")) for folder in folders) for name in names)
        return own_index(self.texts) != "" and not held

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
    wheels = [
        Lock(
            path=variant.with_name(wheels_name(variant.stem.removeprefix("wheels-"), architecture)),
            inputs=included(variant),
            architecture=architecture,
        )
        for variant in sorted(folder.glob("wheels-*.in"))
    ]
    return conda, wheels


def _neighbours(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.parent.glob("*/environment.yml")]


def how_to_have(path: Path) -> str:
    """What makes a lock that a site names and that is not there."""
    name = path.stem
    if not name.startswith("wheels-") or not path.parent.is_dir():
        return "Correct it, or write the lock: provision env lock."
    former = path.with_name(name.replace(name.split("-")[1], "cuda") + ".lock")
    if former.is_file():
        return (
            "Locks of wheels have their CUDA in their names since there is cluster_environment_kind: rename "
            f"{former} and its .in to {name}, with the CUDA that they are for, and say that as "
            "cluster_environment_kind; or leave them and set conda_env_wheel_lock."
        )
    kinds = sorted(found.stem.removeprefix("wheels-") for found in path.parent.glob("wheels-*.lock"))
    return (
        f"Set cluster_environment_kind to one that is locked there ({', '.join(kinds) or 'none is'}), or "
        f"write wheels-KIND.in, then: provision env lock {path.parent.name}"
    )


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
    write_file(lock.path, render_layer(layer))


def lock_wheels(lock: Lock, *, python: str, environment: Mapping[str, str], torch_index: str = "") -> None:
    """Solves wheels for Linux and writes their lock: versions and hashes, no place.

    Args:
        torch_index: address of PyTorch's own index, or of a mirror of it, above its folders (cpu, cu118...).

    Raises:
        MissingRequirement: there is no uv here.
        CommandFailed: there is no solution, or the index cannot be reached.
        BadInput: an input is missing, or the solution cannot be locked.
    """
    uv = uv_on(environment)
    if uv is None:
        raise MissingRequirement(
            f"lock {lock.path.name}", found="there is no uv", fix=f"{sys.executable} -m pip install uv"
        )
    texts = lock.texts
    until = solved_until(texts)
    variables = {name: value for name, value in environment.items() if name not in _CHOOSING}
    archives = [archive_of(one, uv=uv, until=until, environment=variables) for one in from_source(texts)]
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
        excludes, needs = Path(scratch) / "excludes.txt", Path(scratch) / "needs.in"
        named = [*left_out(texts), *(archive.name for archive in archives)]
        excludes.write_text("".join(f"{name}\n" for name in named))
        needs.write_text("".join(f"{line}\n" for archive in archives for line in needs_of(archive)))
        words = uv_words(
            uv,
            [lock.inputs[0], *([needs] if archives else [])],
            python=python,
            architecture=lock.architecture,
            until=until,
            excludes=excludes,
            places=_places(texts, environment.get("PIP_FIND_LINKS", ""), torch_index),
        )
        solved = tomllib.loads(_solved(words, lock, variables))
    refuse_sources(solved, lock=lock.path.name, architecture=lock.architecture)
    text = render(
        solved,
        made_from=lock.made_from,
        python=python,
        architecture=lock.architecture,
        until=until,
        archives=archives,
    )
    write_file(lock.path, text)


def _places(texts: Sequence[str], find_links: str, torch_index: str) -> list[str]:
    """Where a build is that the usual index lacks.

    A folder of wheels is searched only for what pins a local version (torch==2.13.0+cpu): to torch==2.13.0 it
    would offer the CPU build as well.
    """
    searched = find_links.split() if local_builds(texts) else []
    words = [word for place in searched for word in ("--find-links", place)]
    if torch_index and (folder := own_index(texts)):
        words += ["--index", f"{torch_index.rstrip('/')}/{folder}", "--index-strategy", "unsafe-best-match"]
    return words


def _solved(words: Sequence[str], lock: Lock, variables: Mapping[str, str]) -> str:
    finished = run(words, timeout_seconds=_SOLVE_SECONDS, env=variables, check=False)
    if finished.returncode == 0:
        return finished.stdout
    fix = "Correct wheels.in, or see that the index of Python packages can be reached."
    if "building from source is disabled" in finished.stderr:
        fix = WITHOUT_WHEEL
    if "exclude-newer" in finished.stderr:
        fix = (
            f"What was published after {solved_until(lock.texts)} does not count, nor what an index does not "
            "date: name an older version, set a later time, or take the line `# solved until:` out of "
            f"{' or '.join(path.name for path in lock.inputs)}."
        )
    if builds := local_builds(lock.texts):
        fix = (
            f"{', '.join(builds)} is a build that the index of Python packages lacks: name a folder that has "
            "it in PIP_FIND_LINKS, or PyTorch's own index with --torch-index; or leave this lock out and "
            "name the kind that you want: --kind cuda130."
        )
    said = "\n".join(finished.stderr.strip().splitlines()[-12:])
    raise CommandFailed(
        f"solve {lock.inputs[0]}", found=said or f"uv ended with {finished.returncode}", fix=fix
    )


def uv_words(
    uv: Path,
    sources: Sequence[Path],
    *,
    python: str,
    architecture: str,
    until: str,
    excludes: Path,
    places: Sequence[str],
) -> list[str]:
    """uv's command line: everything stated that could make another solution of the same inputs."""
    return [
        *(str(uv), "pip", "compile", *map(str, sources), "--format", "pylock.toml", "--generate-hashes"),
        *("--python-version", python, "--python-platform", platform_of(architecture)),
        *("--resolution", "highest", "--prerelease", "if-necessary-or-explicit"),
        *(("--exclude-newer", until) if until else ()),
        *("--excludes", str(excludes)),
        *("--no-build", "--no-sources", "--no-header", "--no-annotate", "--quiet"),
        *places,
    ]
