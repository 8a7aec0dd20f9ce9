"""What this machine must have before a lab can be made on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from provision.errors import MissingRequirement

# program -> the Debian and Ubuntu package that carries it
_PACKAGES = {
    "apt-get": "apt",
    "ip": "iproute2",
    "losetup": "mount",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "tc": "iproute2",
    "unshare": "util-linux",
}
_DEVICES = ("/dev/loop-control",)


def missing() -> list[str]:
    """What is missing here, one phrase each; empty when a lab can be made."""
    absent = sorted({package for program, package in _PACKAGES.items() if shutil.which(program) is None})
    found = [f"the package {package}" for package in absent]
    found += [f"the device {device}" for device in _DEVICES if not Path(device).exists()]
    if os.geteuid() != 0:
        found.append("the rights of root")
    return found


def require() -> None:
    """Raises:
    MissingRequirement: names everything that is missing, and the command that installs it.
    """
    lacks = missing()
    if not lacks:
        return
    packages = [phrase.removeprefix("the package ") for phrase in lacks if "package" in phrase]
    fixes = [f"apt-get install -y {' '.join(packages)}"] if packages else []
    fixes += ["run it as root (sudo)"] if os.geteuid() != 0 else []
    raise MissingRequirement(
        "make a lab on this machine",
        found=f"it lacks {', '.join(lacks)}",
        fix="; ".join(fixes) or "Use a machine (not an unprivileged container) whose kernel offers it.",
    )
