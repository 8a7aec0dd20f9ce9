"""Limits of this machine's kernel that all nodes of all labs share."""

from __future__ import annotations

from pathlib import Path

# A node's systemd and services hold 6 to 12 inotify instances, all of them this machine's root's. With the
# kernel's default of 128 the tenth node hangs in its boot (systemd: "Failed to create inotify object").
INOTIFY_INSTANCES = 8192
_SETTING = Path("/proc/sys/fs/inotify/max_user_instances")


def inotify_instances() -> int:
    """How many inotify instances this machine's root may have."""
    return int(_SETTING.read_text())


def raise_inotify_instances() -> None:
    """Sets the limit that many nodes need, until this machine boots again; nothing takes it back."""
    _SETTING.write_text(f"{INOTIFY_INSTANCES}\n")
