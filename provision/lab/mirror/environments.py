"""The environments' conda layers: solved and locked for the mirror's channel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from provision.edges.fetch import fetch
from provision.environments.conda_layer import PLATFORM, CondaLayer, from_conda_lock, render
from provision.environments.conda_lock import solve
from provision.lab.mirror.conda_archive import write_channel
from provision.lab.mirror.installers import conda_of, installer_in
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of

_SOLVE_SECONDS = 900.0
_FETCH_SECONDS = 300.0
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
        fetch(f"{channel}/{package.path}", target, sha256=package.sha256, timeout_seconds=_FETCH_SECONDS)
    write_channel(folder)
