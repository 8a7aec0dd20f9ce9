"""Wheels as conda packages."""

from __future__ import annotations

from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provision.lab.mirror.conda_archive import PLACEHOLDER, CondaIndex
from provision.lab.mirror.standin.tree import PYTHON, PYTHON_SPEC, SITE_PACKAGES, Tree, finish, start

# Where conda's channels write a name in another way than the index of Python packages does.
_CONDA_NAMES = {"ruamel-yaml": "ruamel.yaml"}


def conda_name(name: str) -> str:
    """The conda package's name for a distribution's."""
    canonical = canonicalize_name(name)
    return _CONDA_NAMES.get(canonical, canonical)


def index_of(metadata: Message) -> CondaIndex:
    """What the conda package says, from the wheel's METADATA: markers for this Python, no extras."""
    needs = [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]
    wanted = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return CondaIndex(
        name=conda_name(metadata["Name"]),
        version=metadata["Version"],
        depends=(PYTHON_SPEC, *sorted({conda_name(need.name) for need in wanted})),
        license=metadata.get("License-Expression") or metadata.get("License") or "see the wheel",
    )


def tree_of(wheel: Path, work: Path) -> Tree:
    """Lays a wheel out as a conda package."""
    with WheelFile.open(wheel) as source:
        index = index_of(HeaderParser().parsestr(source.read_dist_info("METADATA")))
        folder = start(work, index)
        install(
            source=source, destination=_destination(folder), additional_metadata={"INSTALLER": b"conda\n"}
        )
    return finish(folder, index)


def _destination(folder: Path) -> SchemeDictionaryDestination:
    """Where the parts of a wheel go; scripts name the interpreter of the environment to be."""
    packages = str(folder / SITE_PACKAGES)
    return SchemeDictionaryDestination(
        {
            "purelib": packages,
            "platlib": packages,
            "headers": str(folder / "include" / PYTHON),
            "scripts": str(folder / "bin"),
            "data": str(folder),
        },
        interpreter=f"{PLACEHOLDER}/bin/{PYTHON}",
        script_kind="posix",
    )
