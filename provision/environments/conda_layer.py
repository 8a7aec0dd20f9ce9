"""The lock of an environment's conda layer: folder, file and sha256 of each package, and no host.

    # platform: linux-64
    # channel: conda-forge
    # environment: 0123...        sha256 of the environment.yml that was solved
    linux-64/python-3.11.9-0_cpython.conda#sha256:4567...

The lines stand in the order in which conda links them. An installation puts a channel's address before them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from provision.errors import BadInput

PLATFORM = "linux-64"
# conda's names, by those of `uname -m`.
PLATFORMS = {"x86_64": PLATFORM, "aarch64": "linux-aarch64"}
_HEADER = re.compile(r"^# (platform|channel|environment): (\S+)$", re.MULTILINE)
_LINE = re.compile(r"([a-z0-9-]+/[^/#\s]+\.(?:conda|tar\.bz2))#sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaPackage:
    """A locked package: `subdir/file` within its channel, and the sha256 (hex) of that file."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaLayer:
    """A locked conda layer."""

    platform: str
    channel: str  # its name, never an address
    environment_sha256: str
    packages: tuple[CondaPackage, ...]


def environment_digest(environment_yml: str) -> str:
    """Names the state of an environment.yml: sha256, hex."""
    return hashlib.sha256(environment_yml.encode()).hexdigest()


def from_conda_lock(
    lock: Mapping[str, Any], *, channel: str, environment_yml: str, platform: str = PLATFORM
) -> CondaLayer:
    """The layer in a lock file of conda-lock (its format 1, parsed).

    Raises:
        BadInput: it holds packages of another kind, from several channels, or without a sha256.
    """
    entries: Sequence[Mapping[str, Any]] = lock["package"]
    wrong = [entry["name"] for entry in entries if entry["manager"] != "conda"]
    if wrong:
        raise _refusal(f"pip packages ({', '.join(wrong)})", "Move them to wheels.in.")
    bare = [entry["name"] for entry in entries if not entry["hash"].get("sha256")]
    if bare:
        raise _refusal(f"{', '.join(bare)} without sha256", "Use a channel whose repodata.json has them.")
    bases = sorted({entry["url"].rsplit("/", 2)[0] for entry in entries})
    if len(bases) != 1:
        raise _refusal(f"packages of {len(bases)} channels", "Use one channel, or a mirror that joins them.")
    packages = tuple(
        CondaPackage(path="/".join(entry["url"].rsplit("/", 2)[1:]), sha256=entry["hash"]["sha256"])
        for entry in _dependencies_first(entries)
    )
    return CondaLayer(
        platform=platform,
        channel=channel_name(channel),
        environment_sha256=environment_digest(environment_yml),
        packages=packages,
    )


def _dependencies_first(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    by_name = {entry["name"]: entry for entry in sorted(entries, key=lambda entry: str(entry["name"]))}
    needs = {name: sorted(set(entry["dependencies"]) & set(by_name)) for name, entry in by_name.items()}
    # python needs pip for use, not for being linked (conda's add_pip_as_python_dependency).
    needs["python"] = [name for name in needs.get("python", []) if name != "pip"]
    order = TopologicalSorter(needs).static_order()
    return [by_name[name] for name in order if name in by_name]


def _refusal(found: str, fix: str) -> BadInput:
    return BadInput("lock the conda layer", found=f"the solution holds {found}", fix=fix)


def channel_name(channel: str) -> str:
    """A channel's name without the place where it is served."""
    return channel.rstrip("/").rpartition("/")[2]


def render(layer: CondaLayer) -> str:
    """The text of the lock file."""
    head = {"platform": layer.platform, "channel": layer.channel, "environment": layer.environment_sha256}
    lines = [f"# {name}: {value}" for name, value in head.items()]
    lines += [f"{package.path}#sha256:{package.sha256}" for package in layer.packages]
    return "\n".join([*lines, ""])


def parse(text: str) -> CondaLayer:
    """Reads a lock file.

    Raises:
        BadInput: a line is not of this form.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    matches = [_LINE.fullmatch(line) for line in lines]
    head = dict(_HEADER.findall(text))
    bad = [line for line, match in zip(lines, matches, strict=True) if match is None]
    bad += [f"# {name}:" for name in ("platform", "channel", "environment") if name not in head]
    if bad:
        raise BadInput(
            "read the lock of a conda layer",
            found=f"the line {bad[0]!r} is not as it must be, or missing",
            fix="Solve it anew: provision env lock NAME",
        )
    return CondaLayer(
        platform=head["platform"],
        channel=head["channel"],
        environment_sha256=head["environment"],
        packages=tuple(CondaPackage(path=match[1], sha256=match[2]) for match in matches if match),
    )


def explicit_lines(layer: CondaLayer, *, channel: str) -> str:
    """The layer as a file that `conda create --file` installs without solving, from a channel's address."""
    lines = [f"{channel.rstrip('/')}/{package.path}#sha256:{package.sha256}" for package in layer.packages]
    return "\n".join(["@EXPLICIT", *lines, ""])
