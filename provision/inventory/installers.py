"""Whether the Miniconda installer of a site can install its locks, by the table of published ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from provision.roles.gpu_driver import version_of

# conda verifies the sha256 of a lock's lines from here on; an older one refuses such a lock (envs/README.md).
OLDEST = "24.9"
_NAME = re.compile(r"Miniconda3-py\d+_([0-9.]+)-\d+-Linux-(x86_64|aarch64)\.sh$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """A published installer: its conda's version and the processors that it is for."""

    conda: str
    architecture: str


def installers_in(table: str) -> dict[str, Installer]:
    """By sha256 those of envs/miniconda_installers.tsv."""
    rows = [line.split("\t") for line in table.splitlines() if line and not line.startswith("#")]
    known = {row[3]: _named(row[2]) for row in rows if len(row) == 4}
    return {sha256: installer for sha256, installer in known.items() if installer}


def _named(address: str) -> Installer | None:
    match = _NAME.search(address)
    return Installer(conda=match[1], architecture=match[2]) if match else None


def installer_fault(
    source: str, sha256: str, *, architecture: str, known: Mapping[str, Installer]
) -> tuple[str, str] | None:
    """What is wrong with an installer and what to do; None for one that nobody knows, too."""
    installer = known.get(sha256) or _named(source)
    if installer is None:
        return None
    if installer.architecture != architecture:
        found = f"the installer is for {installer.architecture}, and cluster_architecture is {architecture}"
        return found, "Take the one of envs/miniconda_installers.tsv for these processors."
    if (version_of(installer.conda) or ()) < (version_of(OLDEST) or ()):
        found = (
            f"the installer brings conda {installer.conda}, which refuses our locks (sha256 in their lines)"
        )
        return found, f"Take one of envs/miniconda_installers.tsv from {OLDEST} on."
    return None
