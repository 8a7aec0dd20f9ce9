"""Where the wheels of a lock are and how large, asked of an index through uv; nothing of them is run."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from provision.edges.process import run
from provision.environments.sources import archive_of, uv_on
from provision.environments.wheel_lock import apart, pins, platform_of
from provision.errors import BadInput, CommandFailed, MissingRequirement

_SECONDS = 300.0
_PYTHON = re.compile(r"^# for: cp(\d)(\d+)-", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A file of an index: its name, address, sha256 (hex) and bytes, None where the index does not say."""

    name: str
    address: str
    sha256: str
    size: int | None


def wheels_of(lock: Path, *, architecture: str, source: str, environment: Mapping[str, str]) -> list[Wheel]:
    """The files that a lock names, where the index has them now.

    Args:
        source: address of the index; "" takes the one that uv takes here.

    Raises:
        BadInput: there is no such lock.
        MissingRequirement: there is no uv here.
        CommandFailed: the index does not answer, or lacks one of them.
    """
    asked = f"find the wheels of {lock}"
    try:
        text = lock.read_text()
    except OSError as e:
        fix = "provision env lock makes it; --kind names another one."
        raise BadInput(asked, found=e.strerror or str(e), fix=fix) from e
    uv = uv_on(environment)
    if uv is None:
        raise MissingRequirement(
            asked, found="there is no uv", fix="Install it beside provision: pip install uv"
        )
    wheels, sources = apart(text)
    built = [_archive(pin, uv, source, environment, asked) for pin in pins(sources)]
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
        named = Path(scratch) / "wheels.txt"
        named.write_text(wheels)
        words = _words(uv, named, text, architecture, source, environment.get("PIP_FIND_LINKS", ""))
        finished = run(words, timeout_seconds=_SECONDS, env=environment, cwd=Path(scratch), check=False)
    if finished.returncode != 0:
        said = "\n".join(finished.stderr.strip().splitlines()[-12:])
        fix = "See that the index can be reached: conda_env_wheel_source of the site, else UV_DEFAULT_INDEX."
        raise CommandFailed(asked, found=said or f"uv ended with {finished.returncode}", fix=fix)
    return [*chosen(wheels, tomllib.loads(finished.stdout), asked=asked), *built]


def _archive(
    pin: tuple[str, str], uv: Path, source: str, environment: Mapping[str, str], asked: str
) -> Wheel:
    """The archive of sources that a lock names as built from them."""
    requirement, sha256 = pin
    index = {"UV_DEFAULT_INDEX": source} if source else {}
    found = archive_of(requirement, uv=uv, until="", environment={**environment, **index})
    if found.sha256 != sha256:
        fix = "Name an index that has it (conda_env_wheel_source), or lock anew: provision env lock"
        raise CommandFailed(asked, found=f"the index has another archive of {requirement}", fix=fix)
    return Wheel(name=found.file, address=found.address, sha256=sha256, size=None)


def _words(
    uv: Path, lock: Path, text: str, architecture: str, source: str, find_links: str
) -> Sequence[str | Path]:
    python = found[1] + "." + found[2] if (found := _PYTHON.search(text)) else "3.11"
    places = [word for place in find_links.split() for word in ("--find-links", place)]
    return (
        *(uv, "pip", "compile", lock.resolve(), "--no-deps", "--no-build", "--no-config", "--quiet"),
        *("--format", "pylock.toml", "--no-header", "--python-version", python),
        *("--python-platform", platform_of(architecture)),
        *(("--default-index", source) if source else ()),
        # A folder of wheels has what no index has: builds with a local version.
        *(places if not source and any("+" in requirement for requirement, _ in pins(text)) else ()),
    )


def chosen(lock: str, solved: Mapping[str, Any], *, asked: str) -> list[Wheel]:
    """Those files of a solution (pylock.toml, parsed) that a lock has the hash of.

    Raises:
        CommandFailed: one that the lock names is not among them.
    """
    hashes = set(_HASH.findall(lock))
    found: dict[str, Wheel] = {}
    for package in solved.get("packages", ()):
        for file in (*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())):
            sha256 = str(file.get("hashes", {}).get("sha256", ""))
            if sha256 in hashes:
                found[sha256] = _wheel(file, sha256)
    for entry in re.split(r"(?<!\\)\n", lock):
        wanted = _HASH.findall(entry)
        if wanted and not found.keys() & set(wanted):
            fix = "Name an index that has it (conda_env_wheel_source), or lock anew: provision env lock"
            raise CommandFailed(asked, found=f"the index has no {entry.split()[0]} of that hash", fix=fix)
    return sorted(found.values(), key=lambda wheel: wheel.name)


def _wheel(file: Mapping[str, Any], sha256: str) -> Wheel:
    address = file.get("url") or Path(file["path"]).resolve().as_uri()
    size = file.get("size")
    return Wheel(
        name=unquote(urlsplit(address).path).rpartition("/")[2],
        address=address,
        sha256=sha256,
        size=size if type(size) is int else None,
    )
