"""Packages that an environment has built from their archive of sources, since there is no wheel of them.

Here they are only read: an index says where an archive lies and which sha256 it has, the archive says what it
asks for. Nothing of it is run: the node that builds the environment does that, once.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping
from email import message_from_bytes
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from provision.edges.fetch import fetch
from provision.edges.process import run
from provision.environments.wheel_lock import Archive
from provision.errors import BadInput, CommandFailed, MissingRequirement

_SECONDS = 300.0
_LARGEST = 4 << 20  # bytes of a file that says what an archive asks for
_USUAL = ["setuptools"]  # what pip builds with where an archive says nothing (PEP 517)


def uv_on(environment: Mapping[str, str]) -> Path | None:
    """The uv beside this interpreter, else that of the search path."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}:{environment.get('PATH', '')}")
    return Path(found) if found else None


def archive_of(requirement: str, *, uv: Path, until: str, environment: Mapping[str, str]) -> Archive:
    """Where the index of Python packages has the archive of `NAME==VERSION`.

    Raises:
        BadInput: it is not one version of a package.
        CommandFailed: the index has no archive of it, or does not answer.
    """
    asked = f"have {requirement} built from source"
    name, version = _pinned(requirement, asked)
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
        source, settings = Path(scratch) / "one.in", Path(scratch) / "uv.toml"
        source.write_text(f"{name}=={version}\n")
        # uv, which is told what the archive says of itself, does not run it to learn that.
        settings.write_text(
            f"[[dependency-metadata]]\nname = {json.dumps(name)}\nversion = {json.dumps(version)}\n"
        )
        words = [
            *(uv, "pip", "compile", source, "--no-deps", "--no-binary", name, "--config-file", settings),
            *("--format", "pylock.toml", "--generate-hashes", "--no-header", "--quiet"),
            *(("--exclude-newer", until) if until else ()),
        ]
        finished = run(words, timeout_seconds=_SECONDS, env=environment, check=False)
    if finished.returncode != 0:
        said = "\n".join(finished.stderr.strip().splitlines()[-6:])
        fix = "Correct the version, or see that the index (UV_DEFAULT_INDEX) has it and can be reached."
        raise CommandFailed(asked, found=said or f"uv ended with {finished.returncode}", fix=fix)
    [package] = tomllib.loads(finished.stdout)["packages"]
    found = package["sdist"]
    address = found.get("url") or Path(found["path"]).resolve().as_uri()
    return Archive(name=name, version=version, address=address, sha256=found["hashes"]["sha256"])


def _pinned(text: str, asked: str) -> tuple[str, str]:
    fix = "Name one version in wheels.in: # built from source: deepspeed==0.19.8"
    try:
        found = Requirement(text)
    except InvalidRequirement as e:
        raise BadInput(asked, found="it is no requirement", fix=fix) from e
    versions = list(found.specifier)
    pinned = len(versions) == 1 and versions[0].operator == "==" and "*" not in versions[0].version
    if not pinned or found.url or found.marker or found.extras:
        raise BadInput(asked, found="it is not one version of a package", fix=fix)
    return found.name.lower(), versions[0].version


def fetched(pin: tuple[str, str], folder: Path, *, environment: Mapping[str, str]) -> Path:
    """The archive of a lock's entry (NAME==VERSION, sha256) in a folder; what is there already stays.

    Raises:
        MissingRequirement: there is no uv here.
        CommandFailed: it cannot be had, or is another one.
    """
    requirement, sha256 = pin
    uv = uv_on(environment)
    if uv is None:
        fix = f"{sys.executable} -m pip install uv"
        raise MissingRequirement(f"fetch the sources of {requirement}", found="there is no uv", fix=fix)
    archive = archive_of(requirement, uv=uv, until="", environment=environment)
    target = folder / archive.file
    fetch(archive.address, target, sha256=sha256, timeout_seconds=_SECONDS)
    return target


def needs_of(archive: Archive) -> list[str]:
    """What an archive asks for, to be built and to run (its PKG-INFO and pyproject.toml), without its extras.

    Raises:
        CommandFailed: it cannot be fetched, or is not the one that the index named.
        BadInput: it is no archive of a package.
    """
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
        path = Path(scratch) / "archive.tar.gz"
        fetch(archive.address, path, sha256=archive.sha256, timeout_seconds=_SECONDS)
        try:
            with tarfile.open(path) as opened:
                about = _text(opened, "PKG-INFO")
                project = _text(opened, "pyproject.toml")
            said = message_from_bytes(about).get_all("Requires-Dist", [])
            building = tomllib.loads(project.decode()).get("build-system", {}).get("requires", _USUAL)
            needed = [Requirement(line) for line in (*said, *building)]
        except (tarfile.TarError, OSError, ValueError, InvalidRequirement) as e:
            raise BadInput(
                f"have {archive.name}=={archive.version} built from source",
                found=f"what {archive.file} asks for cannot be read",
                fix="Take its line `# built from source:` out, or name another version.",
            ) from e
    return sorted({str(one) for one in needed if "extra" not in str(one.marker or "")})


def _text(archive: tarfile.TarFile, name: str) -> bytes:
    """A file of the archive's one folder, read and not unpacked; b"" where there is none."""
    for member in archive:
        if member.isfile() and member.name.count("/") == 1 and member.name.endswith(f"/{name}"):
            reader = archive.extractfile(member)
            return reader.read(_LARGEST) if reader else b""
    return b""
