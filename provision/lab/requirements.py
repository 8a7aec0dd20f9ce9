"""What this machine must have before a lab can be made on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from provision.edges.process import stream
from provision.errors import CommandFailed, MissingRequirement

# program -> the Debian and Ubuntu package that carries it
_PACKAGES = {
    "apt-get": "apt",
    "gpg": "gnupg",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.xfs": "xfsprogs",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "tc": "iproute2",
    "taskset": "util-linux",
    "unshare": "util-linux",
    "zstd": "zstd",
}
_APT_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_DEVICES = ("/dev/loop-control",)


def missing_packages() -> list[str]:
    """The Debian and Ubuntu packages whose programs are not on this machine."""
    return sorted({package for program, package in _PACKAGES.items() if shutil.which(program) is None})


def install(on_line: Callable[[str], None]) -> None:
    """Installs what `missing_packages` names.

    Raises:
        CommandFailed: apt-get did not succeed.
    """
    environment = {**_APT_ENVIRONMENT, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *missing_packages()]):
        status = stream(["apt-get", *words], timeout_seconds=600, on_line=on_line, env=environment)
        if status != 0:
            raise CommandFailed(
                f"run apt-get {' '.join(words)}",
                found=f"it ended with status {status}",
                fix="Its output says why; mend that and run the command again.",
            )


def missing() -> list[str]:
    """What is missing here, one phrase each; empty when a lab can be made."""
    found = [f"the package {package}" for package in missing_packages()]
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
    fixes = ["provision lab requirements --install"] if missing_packages() else []
    fixes += ["run it as root (sudo)"] if os.geteuid() != 0 else []
    raise MissingRequirement(
        "make a lab on this machine",
        found=f"it lacks {', '.join(lacks)}",
        fix="; ".join(fixes) or "Use a machine (not an unprivileged container) whose kernel offers it.",
    )
