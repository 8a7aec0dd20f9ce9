"""What a teardown gives back: all of a system, but what README lists as left behind."""

from __future__ import annotations

import re

# Every file, link and folder of the system but for what runs, with mode, owner and content.
FILES = (
    r"find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /dev \) -prune -o "
    r"\( -type f -printf '%p %m %u ' -exec sha256sum {} \; \) -o -type l -printf '%p -> %l\n' "
    r"-o -type d -printf '%p/ %m\n'"
)
_LEFT_BEHIND = re.compile(
    r"^(/var|(/root|/home/[^/]+)/\.(ansible|cache|conda)|/usr/share/zoneinfo|/usr/share/doc/tzdata)/"
    r"|^/etc/(fstab|machine-id|ld\.so\.cache|timezone|localtime|(passwd|group|shadow|gshadow|subuid|subgid)-)$"
    r"|^/usr/share/lintian/overrides/tzdata$|/__pycache__/"
)


def not_given_back(before: str, after: str, *, data: str = "/data") -> list[str]:
    """Lines that `FILES` printed once alone; what is at `data`, where the site has its data, stays.

    Args:
        data: folders with a blank between, as where one is another's bind mount.
    """
    lines = set(before.splitlines()) ^ set(after.splitlines())
    names = {line: line.split(" ")[0] for line in lines}
    folders = tuple(f"{folder}/" for folder in data.split())
    return sorted(
        line for line, name in names.items() if not name.startswith(folders) and not _LEFT_BEHIND.search(name)
    )
