"""Builds the wheel that nodes get, of the runtime alone, once for each state of its sources."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provision.edges.process import run
from provision.errors import BadInput

_PACKAGE = "runtime"
_PROJECT_FILE = "pyproject.toml"
# What of the project's description a node's wheel has; the rest is the controller's.
_DESCRIPTION = ("name", "version", "description", "requires-python", "license", "dependencies")
_PIP_WHEEL = (
    *(sys.executable, "-m", "pip", "wheel", "--quiet"),
    *("--no-deps", "--no-index", "--no-build-isolation"),
)
# The zip format knows no earlier date; a fixed one makes the wheel of equal sources equal byte for byte.
_BUILD_ENVIRONMENT = {"SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A built wheel: where it lies, its sha256 (hex), that of its files, and whether this call built it."""

    path: Path
    sha256: str
    content: str
    built: bool


def source_files(root: Path) -> list[Path]:
    """The files that decide what the wheel holds, sorted.

    Raises:
        BadInput: `root` is not a checkout of this project.
    """
    project, modules = root / _PROJECT_FILE, sorted((root / _PACKAGE).rglob("*.py"))
    if not project.is_file() or not modules:
        raise BadInput(
            "build the wheel",
            found=f"{root} has no {_PACKAGE if project.is_file() else _PROJECT_FILE}",
            fix="Name the root of a clusterwright checkout.",
        )
    return [project, *modules]


def source_digest(root: Path) -> str:
    """sha256 (hex) over the names and contents of `source_files`, and the Python that builds."""
    total = hashlib.sha256(sys.version.encode())
    for path in source_files(root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root)} {content}\n".encode())
    return total.hexdigest()


def ready(root: Path, *, cache: Path) -> Wheel | None:
    """The wheel of the sources under `root` where it was built before.

    Raises:
        BadInput: `root` is not a checkout of this project.
    """
    found = sorted(_folder(root, cache).glob("*.whl"))
    return _described(found[0], built=False) if found else None


def build(root: Path, *, cache: Path, environment: Mapping[str, str]) -> Wheel:
    """The wheel of the sources under `root`, from `cache` where it was built before.

    The build works on a copy: a build folder left in the checkout would bring deleted modules back.

    Raises:
        BadInput: `root` is not a checkout of this project.
        CommandFailed: the build did not succeed.
    """
    if (made := ready(root, cache=cache)) is not None:
        return made
    folder = _folder(root, cache)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        sources, output = Path(scratch) / "sources", Path(scratch) / "output"
        _copy_sources(root, sources)
        run(
            [*_PIP_WHEEL, "--wheel-dir", output, sources],
            timeout_seconds=300,
            env={**environment, **_BUILD_ENVIRONMENT},
        )
        _publish(output, folder)
    return _described(next(folder.glob("*.whl")), built=True)


def _folder(root: Path, cache: Path) -> Path:
    return cache / source_digest(root)[:16]


def _copy_sources(root: Path, target: Path) -> None:
    project, *modules = source_files(root)
    for path in modules:
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (target / _PROJECT_FILE).write_text(_node_project(project.read_text("utf-8")), "utf-8")


def _node_project(text: str) -> str:
    """The wheel's pyproject.toml. Texts and lists of texts are written alike in JSON and in TOML."""
    document = tomllib.loads(text)
    project, tools = document["project"], document["build-system"]
    scripts = {name: at for name, at in project["scripts"].items() if at.startswith(f"{_PACKAGE}.")}
    return "\n".join(
        [
            "[build-system]",
            *(f"{key} = {json.dumps(value)}" for key, value in tools.items()),
            "[project]",
            *(f"{key} = {json.dumps(project[key])}" for key in _DESCRIPTION),
            "[project.optional-dependencies]",
            f"node = {json.dumps(project['optional-dependencies']['node'])}",
            "[project.scripts]",
            *(f"{name} = {json.dumps(at)}" for name, at in scripts.items()),
            "[tool.setuptools]",
            f'packages.find = {{ include = ["{_PACKAGE}*"] }}',
            "",
        ]
    )


def _publish(output: Path, folder: Path) -> None:
    """Renames the finished folder into place; another process that was faster with the same sources wins."""
    try:
        os.rename(output, folder)
    except OSError:
        if not any(folder.glob("*.whl")):
            raise


def _described(path: Path, *, built: bool) -> Wheel:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(path=path, sha256=sha256, content=_content(path), built=built)


def _content(path: Path) -> str:
    """What own_files.py (role runtime) says where this wheel is installed, and nothing beside it."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    names = [name for name in files if not name.endswith(".dist-info/RECORD")]
    lines = sorted(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
