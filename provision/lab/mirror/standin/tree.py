"""The trees that stand-in packages are packed from: laid out as in an environment, ready to be described."""

from __future__ import annotations

import compileall
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode

from provision.bundle.conda_archive import PLACEHOLDER, CondaIndex, describe

_MAJOR, _MINOR = sys.version_info[:2]
PYTHON = f"python{_MAJOR}.{_MINOR}"
PYTHON_SPEC = f"python >={_MAJOR}.{_MINOR},<{_MAJOR}.{_MINOR + 1}.0a0"
SITE_PACKAGES = Path("lib") / PYTHON / "site-packages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A package that is laid out but not packed."""

    folder: Path
    index: CondaIndex


def start(work: Path, index: CondaIndex) -> Path:
    """An empty folder for a package's tree, named as conda names the extracted package."""
    folder = work / index.dist
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def finish(folder: Path, index: CondaIndex) -> Tree:
    """Compiles the tree's modules and describes it.

    Nodes do not compile again. Bytecode carries the hash of its source, so that a changed source is seen.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the modules are other people's
        compileall.compile_dir(
            folder / "lib",
            quiet=2,
            stripdir=str(folder),
            prependdir=PLACEHOLDER,
            invalidation_mode=PycInvalidationMode.CHECKED_HASH,
        )
    describe(folder, index)
    return Tree(folder=folder, index=index)
