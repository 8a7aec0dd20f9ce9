"""Which installed packages are parts of an NVIDIA driver, and which of them may go for another one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UPSTREAM = re.compile(r"(?:\d+:)?([0-9]+(?:\.[0-9]+)*)")
_DRIVER = re.compile(r"(nvidia-(headless|dkms|utils|open|kernel|smi)|cuda-drivers|libcuda1)(-.*)?")
# Ubuntu's modules that are built beforehand have their kernel's version.
_OF_A_KERNEL = re.compile(r"linux-(modules|objects|signatures)-nvidia-.+")


def upstream(version: str) -> str:
    """The driver's own version in that of a package: 580.95.05 of 580.95.05-0ubuntu1."""
    match = _UPSTREAM.match(version)
    return match[1] if match else ""


def installed_in(listed: str) -> dict[str, str]:
    """By package its version, from lines `STATUS NAME VERSION` of dpkg-query."""
    rows = [line.split() for line in listed.splitlines()]
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}


def is_driver(name: str) -> bool:
    """Whether a package carries the driver's version; tools of NVIDIA's have versions of their own."""
    return _DRIVER.fullmatch(name) is not None


def parts_of_drivers(commands: Mapping[str, Mapping[str, Any]], *, ours_alone: bool) -> list[str]:
    """The installed parts of drivers: a driver's own packages, and what else has the version of one.

    Args:
        commands: installed; manual, what somebody asked apt for; ours, the record of what site.yml installed.
        ours_alone: those of a driver that site.yml installed, and what apt brought for it.
    """
    installed = installed_in(commands["installed"]["stdout"])
    ours, manual = (set(commands[name]["stdout"].split()) for name in ("ours", "manual"))
    drivers = {name for name in installed if is_driver(name)}
    versions = {upstream(installed[name]) for name in (drivers & ours if ours_alone else drivers)}
    found = {
        name
        for name, version in installed.items()
        if upstream(version) in versions or (versions and _OF_A_KERNEL.fullmatch(name))
    }
    return sorted(found - (manual - ours) if ours_alone else found)
