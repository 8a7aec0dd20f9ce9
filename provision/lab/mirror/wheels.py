"""The mirror's wheels and archives of sources: what an environment's lock names, behind a static index."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from provision.bundle.wheel_index import pages
from provision.edges.fetch import sha256_of
from provision.edges.process import run
from provision.environments.sources import fetched
from provision.environments.wheel_lock import apart, pins
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of


def download(lock: Path, folder: Path, *, environment: Mapping[str, str]) -> list[Path]:
    """What an environment's lock names, in `folder`; what is there already stays, and nothing of it is run.

    Raises:
        CommandFailed: a file cannot be had, or has none of its hashes.
        MissingRequirement: an archive of sources is named, and there is no uv here.
    """
    wheels, sources = apart(lock.read_text())
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
        named = Path(scratch) / "wheels.txt"
        named.write_text(wheels)
        run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", folder, "-r", named),
            ],
            timeout_seconds=1800,
            env=environment,
        )
    archives = [fetched(requirement, folder, environment=environment) for requirement in pins(sources)]
    return [*sorted(folder.glob("*.whl")), *archives]


def build_wheels(workshop: Workshop, environment: str, lock: Path) -> Part:
    """The wheels of an environment's lock and their index, in `simple/`."""

    def make(folder: Path) -> None:
        wheels = download(lock, folder, environment=workshop.environment)
        index = pages({wheel.name: sha256_of(wheel) for wheel in wheels}, files="../..")
        for name, text in index.items():
            page = folder / "simple" / name
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)

    return workshop.ensure(f"wheels-{environment}", _key(lock), kind=Kind.REAL, make=make)


def are_there(workshop: Workshop, environment: str, lock: Path) -> bool:
    """Whether the wheels of an environment's lock, as it is now, were fetched before."""
    return lock.is_file() and workshop.place(f"wheels-{environment}", _key(lock)).exists()


def _key(lock: Path) -> str:
    return key_of(lock.read_text(), "simple")
