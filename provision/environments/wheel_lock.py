"""The lock of an environment's wheels: the file that pip installs from, versions and hashes and no place.

    # made from: 0123...              sha256 of the files that people wrote
    # for: cp311-manylinux_2_35_x86_64, published until 2026-11-27T00:00:00Z
    torch==2.6.0 \\
        --hash=sha256:4567...         of each wheel that such a node can use
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from provision.errors import BadInput

# The oldest C library that a node may have: that of Ubuntu 22.04, as for the conda layer.
LIBRARY = "manylinux_2_35"


def platform_of(architecture: str) -> str:
    return f"{LIBRARY}_{architecture}"


def render(pylock: Mapping[str, Any], *, made_from: str, python: str, architecture: str, until: str) -> str:
    """The text of the lock of a solution (pylock.toml, PEP 751) of wheels that nodes can use."""
    tags = f"cp{python.replace('.', '')}-{platform_of(architecture)}"
    head = [f"# made from: {made_from}", f"# for: {tags}{f', published until {until}' if until else ''}"]
    packages = sorted(pylock.get("packages", ()), key=lambda package: str(package["name"]))
    return "\n".join([*head, *(_lines(package, architecture) for package in packages), ""])


def _lines(package: Mapping[str, Any], architecture: str) -> str:
    wheels = [wheel for wheel in package["wheels"] if _is_for_linux(wheel, architecture)]
    hashes = sorted({str(wheel["hashes"]["sha256"]) for wheel in wheels})
    named = f"{package['name']}=={package['version']}"
    return " \\\n    ".join([named, *(f"--hash=sha256:{sha256}" for sha256 in hashes)])


def refuse_sources(pylock: Mapping[str, Any], *, lock: str, architecture: str) -> None:
    """Raises BadInput where a package of a solution has no wheel that a node can use."""
    if archives := without_wheel(pylock, architecture):
        raise BadInput(
            f"lock {lock}",
            found=f"there is no wheel of {', '.join(archives)} for Linux, only an archive of sources, which "
            "nodes do not build",
            fix="Take it out of wheels.in (the runtime reads DeepSpeed's configuration and checkpoints "
            "without it). Else build a wheel once, `pip wheel --no-deps NAME==VERSION`, put it into an index "
            "of yours, solve with UV_DEFAULT_INDEX set to that, and set conda_env_wheel_source to it.",
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
