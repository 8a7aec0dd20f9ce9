"""A control group for each node, on machines where no systemd hands them out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_FAMILY = "clusterwright"


def hierarchies(mounts: str) -> list[Path]:
    """Where systemd keeps its groups, from the text of /proc/self/mounts: v2, and name=systemd of v1."""
    found = []
    for line in mounts.splitlines():
        _, place, kind, options = line.split(" ")[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(place))
    return found


def processor_hierarchy(mounts: str) -> Path | None:
    """Where version 1 of control groups shares out processors, from the text of /proc/self/mounts."""
    for line in mounts.splitlines():
        _, place, kind, options = line.split(" ")[:4]
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(place)
    return None


def processor_group(name: str) -> Path | None:
    """The group that limits the processors of `name`; there is none where only version 2 is mounted."""
    hierarchy = processor_hierarchy(Path("/proc/self/mounts").read_text())
    return hierarchy / _FAMILY / name if hierarchy else None


def _mounted() -> list[Path]:
    return hierarchies(Path("/proc/self/mounts").read_text())


def _with_processors() -> list[Path]:
    processors = processor_hierarchy(Path("/proc/self/mounts").read_text())
    return [*_mounted(), *([processors] if processors else [])]


def has_cgroups(name: str) -> bool:
    """Whether any hierarchy has a group called `name`."""
    return any((hierarchy / _FAMILY / name).exists() for hierarchy in _with_processors())


def enter_cgroup(name: str) -> None:
    """Moves this process into its own group: without one, nodes would share the groups of their services."""
    for hierarchy in _mounted():
        group = hierarchy / _FAMILY / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text("0")


def remove_cgroups(name: str, *, wait_seconds: float = 5.0) -> None:
    """Removes the empty groups at and below `name`, then the family's own when nothing else is in it."""
    deadline = time.monotonic() + wait_seconds
    for hierarchy in _with_processors():
        top = hierarchy / _FAMILY / name
        while top.exists():
            _remove(sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True))
            _remove([top])
            if top.exists() and time.monotonic() > deadline:
                break
            time.sleep(0.01)
        _remove([hierarchy / _FAMILY])


def _remove(groups: Iterable[Path]) -> None:
    """The kernel refuses while a process is still leaving a group; whoever calls this tries again."""
    for group in groups:
        with suppress(OSError):
            group.rmdir()
