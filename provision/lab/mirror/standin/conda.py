"""conda itself, from the copy that conda-lock carries, under its own name again."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from provision.lab.mirror.conda_archive import PLACEHOLDER, CondaIndex
from provision.lab.mirror.standin.tree import PYTHON, PYTHON_SPEC, SITE_PACKAGES, Tree, finish, start

_VENDOR_PREFIX = re.compile(r"\bconda_lock\.(_vendor|vendor)\.conda\b")
_SHELL = Path(__file__).parent / "shell"
_NEEDS = (
    *("archspec", "boltons", "conda-package-handling", "conda-package-streaming", "distro", "frozendict"),
    *("jsonpatch", "packaging", "pip", "platformdirs", "pluggy", "python-sat", "requests", "ruamel.yaml"),
    *("setuptools", "tqdm", "truststore", "zstandard"),
)
# What is changed in conda, as (file, text before, text after).
_CHANGES = (
    # The defaults for which this conda has the means: its own solver on python-sat. A settings file would not
    # do: callers that carry a conda themselves, as conda-lock does, hand on a CONDA_ROOT of theirs.
    ("base/constants.py", 'DEFAULT_SOLVER = "libmamba"', 'DEFAULT_SOLVER = "classic"'),
    (
        "base/context.py",
        "PrimitiveParameter(SatSolverChoice.PYCOSAT)",
        "PrimitiveParameter(SatSolverChoice.PYSAT)",
    ),
    # sha256 in explicit files, which conda has had since 24.9 (conda/conda pull request 14048).
    (
        "misc.py",
        'r"(:?#(?P<md5>[0-9a-f]{32}))?$"',
        'r"(?:#(?:(?P<md5>[0-9a-f]{32})|(?:sha256:)?(?P<sha256>[0-9a-f]{64})))?$"',
    ),
    (
        "misc.py",
        "MatchSpec(url, md5=md5sum) if md5sum else MatchSpec(url)",
        'MatchSpec(url, **{name: m[name] for name in ("md5", "sha256") if m[name]})',
    ),
)
# `conda init` wants a file for every shell, whichever it is asked for.
_OTHER_SHELLS = (
    *("etc/fish/conf.d/conda.fish", "etc/profile.d/conda.csh", "conda.xsh"),
    *("condabin/Conda.psm1", "condabin/conda-hook.ps1"),
)
_LAUNCHER = f"""\
#!{PLACEHOLDER}/bin/{PYTHON}
import sys

from conda.cli import main

# conda looks for CUDA in a spawned process, which imports this file again.
if __name__ == "__main__":
    sys.exit(main())
"""


def build_conda(work: Path) -> Tree:
    """Lays out conda: the vendored modules, shell functions and the programs that call them."""
    index = CondaIndex(
        name="conda",
        version=_version(),
        depends=(PYTHON_SPEC, *_NEEDS),
        license="BSD-3-Clause",
        build="standin",
    )
    folder = start(work, index)
    package = folder / SITE_PACKAGES / "conda"
    shutil.copytree(_vendored(), package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in package.rglob("*.py"):
        path.write_text(rename(path.read_text()))
    for name, before, after in _CHANGES:
        _substitute(package / name, before, after)
    shutil.copytree(_SHELL, package / "shell")
    for name in _OTHER_SHELLS:
        (package / "shell" / name).parent.mkdir(parents=True, exist_ok=True)
        (package / "shell" / name).write_text("# The stand-in Miniconda knows sh, bash and zsh only.\n")
    _write_distribution(folder, index.version)
    _write_programs(folder)
    return finish(folder, index)


def rename(text: str) -> str:
    """A vendored module's text with conda's own name for its modules."""
    return _VENDOR_PREFIX.sub("conda", text)


def _substitute(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"conda-lock carries another conda: {path.name} lacks {before}"
    path.write_text(text.replace(before, after))


def _vendored() -> Path:
    """The conda inside conda-lock, found without the second that importing conda-lock takes."""
    found = find_spec("conda_lock")
    assert found is not None, "conda-lock is a dependency of the extra `controller`"
    assert found.origin is not None, "conda-lock is a package of files"
    return Path(found.origin).parent / "_vendor" / "conda"


def _version() -> str:
    text = (_vendored() / "_version.py").read_text()
    found = re.search(r"^__version__ = version = '([\d.]+)'", text, re.MULTILINE)
    assert found is not None, "conda's _version.py has another form than that of setuptools-scm"
    return found[1]


def _write_distribution(folder: Path, version: str) -> None:
    """conda finds itself and its plugins through a distribution's metadata."""
    metadata = folder / SITE_PACKAGES / f"conda-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: conda\nVersion: {version}\n")
    (metadata / "INSTALLER").write_text("conda\n")


def _write_programs(folder: Path) -> None:
    """What `conda init` would write, so that nothing has to be initialised on a node."""
    root = f'_CONDA_ROOT="{PLACEHOLDER}"\n'
    programs = {
        "bin/conda": _LAUNCHER,
        "condabin/conda": _LAUNCHER,
        "bin/activate": f"#!/bin/sh\n{root}{(_SHELL / 'bin' / 'activate').read_text()}",
        "bin/deactivate": f"#!/bin/sh\n{root}{(_SHELL / 'bin' / 'deactivate').read_text()}",
    }
    hook = f"export CONDA_EXE='{PLACEHOLDER}/bin/conda'\nexport CONDA_PYTHON_EXE='{PLACEHOLDER}/bin/python'\n"
    functions = hook + (_SHELL / "etc" / "profile.d" / "conda.sh").read_text()
    for name, text in {**programs, "etc/profile.d/conda.sh": functions}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in programs else 0o644)
