"""What the nodes' base image is made of; its digest names the image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from provision.lab.image import guest

# What a cloud image of Debian or Ubuntu has and a role may count on; nothing that a role installs.
# datefudge is for the fault clock-skew.
PACKAGES = (
    "ca-certificates",
    "datefudge",
    "dbus",
    "e2fsprogs",
    "fdisk",
    "iproute2",
    "iputils-ping",
    "less",
    "libpam-systemd",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
    "vim-tiny",
)
# A node that does not reach the internet would hold the dpkg lock at odd times for nothing.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "e2scrub_reap.service")
_DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
)


def digest(*, release: str, architecture: str) -> str:
    """Names the image that this recipe gives on one release and architecture: 16 hexadecimal digits."""
    recipe = {
        "release": release,
        "architecture": architecture,
        "packages": PACKAGES,
        "masked": MASKED,
        "dpkg": _DPKG_OPTIONS,
        "files": {**guest.FILES, **guest.PROGRAMS},
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def mmdebstrap(*, release: str, target: Path, sources: Path) -> tuple[str, ...]:
    """Builds the image's packages into `target`, in namespaces that end with it."""
    return (
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *("mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"),
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        *(release, str(target), str(sources)),
    )
