"""This machine's interpreter as the conda package `python`: complete without any library of the machine."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from provision.bundle.conda_archive import PLACEHOLDER, CondaIndex
from provision.edges.process import run
from provision.errors import MissingRequirement
from provision.lab.mirror.standin.tree import PYTHON, Tree, finish, start

# The C library stays the node's own: an interpreter cannot bring another one along.
_C_LIBRARY = re.compile(r"(ld-linux.*|lib(c|m|dl|pthread|rt|util|resolv|anl|mvec))\.so.*")
_LDD_LINE = re.compile(r"^\s*(\S+) => (/\S+|not found)", re.MULTILINE)
_LEFT_OUT_FOLDERS = frozenset(
    {
        *("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "idlelib"),
        *("tkinter", "turtledemo", "lib2to3"),
    }
)
_LEFT_OUT_FILES = re.compile(
    r".*\.a$|EXTERNALLY-MANAGED$|sitecustomize\.py$|turtle\.py$|.*\.pyc$"
    r"|(_tkinter|nis|_test.*|_ctypes_test|xx.*)\..*so$"
)

# Debian's own Python looks for packages in dist-packages unless it runs in a virtual environment, and has the
# module `site` compiled into the interpreter.
_DEBIAN_SITE = "dist-packages"
_DEBIAN_SCHEME = 'if sys.base_prefix != sys.prefix or hasattr(sys, "real_prefix"):\n        # virtual'
_SITE_CUSTOMIZE = """\
import site
import sys

site.addsitedir(f"{sys.prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
"""


def build_python(work: Path, patchelf: Path) -> Tree:
    """Lays out the interpreter that runs this, with its standard library and the libraries that both need.

    Raises:
        MissingRequirement: a library of the interpreter cannot be found.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    index = CondaIndex(name="python", version=version, depends=(), license="PSF-2.0", build="standin_cpython")
    folder = start(work, index)
    _copy_interpreter(folder)
    _copy_standard_library(folder)
    _copy_libraries(folder)
    _make_relocatable(folder, patchelf)
    (folder / "lib" / PYTHON / "site-packages").mkdir(exist_ok=True)
    return finish(folder, index)


def _copy_interpreter(folder: Path) -> None:
    target = folder / "bin" / PYTHON
    target.parent.mkdir()
    shutil.copyfile(Path(sys._base_executable).resolve(), target)  # type: ignore[attr-defined]
    target.chmod(0o755)
    for name in ("python", "python3"):
        (target.parent / name).symlink_to(PYTHON)
    headers = Path(sysconfig.get_path("include"))
    if headers.is_dir():
        shutil.copytree(headers, folder / "include" / headers.name)


def _copy_standard_library(folder: Path) -> None:
    source = Path(sysconfig.get_path("stdlib"))
    target = folder / "lib" / PYTHON
    shutil.copytree(source, target, ignore=_left_out, symlinks=False)
    if _DEBIAN_SITE in (target / "site.py").read_text():
        scheme = target / "sysconfig.py"
        scheme.write_text(scheme.read_text().replace(_DEBIAN_SCHEME, "if True:\n        # virtual"))
        (target / "sitecustomize.py").write_text(_SITE_CUSTOMIZE)


def _left_out(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in _LEFT_OUT_FOLDERS or _LEFT_OUT_FILES.match(name)}


def _copy_libraries(folder: Path) -> None:
    """Copies what the interpreter and its extension modules are linked to, into the package's lib/."""
    binaries = [Path(sys._base_executable).resolve(), *_extension_modules(folder)]  # type: ignore[attr-defined]
    for name, place in sorted(_linked(binaries).items()):
        target = folder / "lib" / name
        shutil.copyfile(place, target)
        target.chmod(0o755)
        link = folder / "lib" / f"{name.split('.so')[0]}.so"
        if name.startswith("libpython") and not link.exists():
            link.symlink_to(name)


def _extension_modules(folder: Path) -> list[Path]:
    return sorted((folder / "lib" / PYTHON / "lib-dynload").glob("*.so"))


def _linked(binaries: Iterable[Path]) -> dict[str, Path]:
    output = run(["ldd", *binaries], timeout_seconds=60).stdout
    found = linked_libraries(output)
    missing = sorted(name for name, place in found.items() if place == "not found")
    if missing:
        raise MissingRequirement(
            f"package this machine's {PYTHON}",
            found=f"its libraries {', '.join(missing)} are not there",
            fix="Repair that interpreter, or run provision with another one.",
        )
    return {name: Path(place) for name, place in found.items()}


def linked_libraries(ldd_output: str) -> dict[str, str]:
    """The shared libraries that ldd lists and where they are, less those of the C library."""
    pairs = _LDD_LINE.findall(ldd_output)
    return {name: place for name, place in pairs if not _C_LIBRARY.fullmatch(name)}


def _make_relocatable(folder: Path, patchelf: Path) -> None:
    """Binaries find their libraries relative to themselves; the old place in texts becomes a placeholder."""
    library = folder / "lib"
    for files, origin in (
        ([folder / "bin" / PYTHON], "$ORIGIN/../lib"),
        (_extension_modules(folder), "$ORIGIN/../.."),
        ([path for path in library.glob("*.so*") if not path.is_symlink()], "$ORIGIN"),
    ):
        _set_search_path(patchelf, origin, files)
    places = {sys.base_prefix, os.path.realpath(sys.base_prefix)} - {"/usr", "/"}
    for path in (*library.glob(f"{PYTHON}/_sysconfigdata*.py"), *library.glob(f"{PYTHON}/config-*/*")):
        _replace(path, places)


def _set_search_path(patchelf: Path, origin: str, files: Sequence[Path]) -> None:
    if files:
        run([patchelf, "--force-rpath", "--set-rpath", origin, *files], timeout_seconds=60)


def _replace(path: Path, places: Iterable[str]) -> None:
    text = path.read_text(errors="surrogateescape")
    for place in places:
        text = text.replace(place, PLACEHOLDER)
    path.write_text(text, errors="surrogateescape")
