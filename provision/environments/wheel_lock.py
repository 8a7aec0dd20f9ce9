"""The lock of an environment's wheels: the file that pip installs from, versions and hashes and no place.

    # made from: 0123...              sha256 of the files that people wrote
    # for: cp311-manylinux_2_35_x86_64, published until 2026-11-27T00:00:00Z
    # built from source: deepspeed  packages whose hash is that of their archive of sources
    torch==2.6.0 \\
        --hash=sha256:4567...         of each wheel that such a node can use
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.environments.wheel_inputs import from_source
from provision.errors import BadInput

# The oldest C library that a node may have: that of Ubuntu 22.04, as for the conda layer.
LIBRARY = "manylinux_2_35"
# What is done about a package that has only an archive of sources.
WITHOUT_WHEEL = (
    "Take it out of wheels.in, or have the node that builds the environment run what the archive brings, as "
    "root: `# built from source: NAME==VERSION` in wheels.in. Else build a wheel once, put it into an index "
    "of yours, solve with UV_DEFAULT_INDEX set to that, and set conda_env_wheel_source to it."
)
_ENTRY = re.compile(r"^[^#\s](?:.*\\\n)*.*\n?", re.MULTILINE)
_PIN = re.compile(r"^(\S+==\S+) \\\n    --hash=sha256:([0-9a-f]{64})", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An archive of sources: package, version, where an index has it, and its sha256 (hex)."""

    name: str
    version: str
    address: str
    sha256: str

    @property
    def file(self) -> str:
        return self.address.rpartition("/")[2].partition("#")[0]


def platform_of(architecture: str) -> str:
    return f"{LIBRARY}_{architecture}"


def render(
    pylock: Mapping[str, Any],
    *,
    made_from: str,
    python: str,
    architecture: str,
    until: str,
    archives: Sequence[Archive] = (),
) -> str:
    """The text of the lock of a solution (pylock.toml, PEP 751): wheels that nodes can use, and archives."""
    tags = f"cp{python.replace('.', '')}-{platform_of(architecture)}"
    head = [f"# made from: {made_from}", f"# for: {tags}{f', published until {until}' if until else ''}"]
    if archives:
        head.append(f"# built from source: {' '.join(sorted(one.name for one in archives))}")
    entries = {str(package["name"]): _wheels(package, architecture) for package in pylock.get("packages", ())}
    entries |= {one.name: _entry(one.name, one.version, [one.sha256]) for one in archives}
    return "\n".join([*head, *(entries[name] for name in sorted(entries)), ""])


def apart(lock: str) -> tuple[str, str]:
    """A lock as two that pip can be given: of wheels, and of archives of sources ("" where it has none)."""
    named = from_source([lock])
    if not named:
        return lock, ""
    entries = _ENTRY.findall(lock)
    sources = [entry for entry in entries if entry.partition("==")[0] in named]
    return "".join(entry for entry in entries if entry not in sources), "".join(sources)


def pins(lock: str) -> list[tuple[str, str]]:
    """Each entry of a lock as NAME==VERSION, and the first of its hashes (sha256, hex)."""
    return _PIN.findall(lock)


def _wheels(package: Mapping[str, Any], architecture: str) -> str:
    wheels = [wheel for wheel in package["wheels"] if _is_for_linux(wheel, architecture)]
    hashes = sorted({str(wheel["hashes"]["sha256"]) for wheel in wheels})
    return _entry(str(package["name"]), str(package["version"]), hashes)


def _entry(name: str, version: str, hashes: Sequence[str]) -> str:
    named = f"{name}=={version}"
    return " \\\n    ".join([named, *(f"--hash=sha256:{sha256}" for sha256 in hashes)])


def refuse_sources(pylock: Mapping[str, Any], *, lock: str, architecture: str) -> None:
    """Raises BadInput where a package of a solution has no wheel that a node can use."""
    if archives := without_wheel(pylock, architecture):
        raise BadInput(
            f"lock {lock}",
            found=f"there is no wheel of {', '.join(archives)} for Linux, only an archive of sources, which "
            "nodes do not build",
            fix=WITHOUT_WHEEL,
        )


def without_wheel(pylock: Mapping[str, Any], architecture: str) -> list[str]:
    """The packages of a solution that have no wheel which Linux can use."""
    packages: Sequence[Mapping[str, Any]] = pylock.get("packages", ())
    return [
        f"{package['name']} {package.get('version', '')}".strip()
        for package in packages
        if not any(_is_for_linux(wheel, architecture) for wheel in package.get("wheels", ()))
        and ("sdist" in package or "wheels" in package)
    ]


def _is_for_linux(wheel: Mapping[str, Any], architecture: str) -> bool:
    name = str(wheel.get("name") or wheel.get("url") or wheel.get("path") or "").rpartition("/")[2]
    platform = name.removesuffix(".whl").rpartition("-")[2]
    return platform == "any" or ("linux" in platform and architecture in platform)
