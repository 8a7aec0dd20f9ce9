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


# Controllers of version 1 with which faults limit a node: processors, disks.
CONTROLLERS = ("cpu", "blkio")


def controlled_hierarchy(mounts: str, controller: str) -> Path | None:
    """Where version 1 of control groups has a controller, from the text of /proc/self/mounts."""
    for line in mounts.splitlines():
        _, place, kind, options = line.split(" ")[:4]
        if kind == "cgroup" and controller in options.split(","):
            return Path(place)
    return None


def limited_groups(name: str) -> dict[str, Path]:
    """The groups that limit `name`, by controller; none where only version 2 is mounted."""
    mounts = Path("/proc/self/mounts").read_text()
    found = {controller: controlled_hierarchy(mounts, controller) for controller in CONTROLLERS}
    return {controller: place / _FAMILY / name for controller, place in found.items() if place}


def _mounted() -> list[Path]:
    return hierarchies(Path("/proc/self/mounts").read_text())


def _every() -> list[Path]:
    mounts = Path("/proc/self/mounts").read_text()
    limiting = [controlled_hierarchy(mounts, controller) for controller in CONTROLLERS]
    return [*hierarchies(mounts), *(place for place in limiting if place)]


def has_cgroups(name: str) -> bool:
    """Whether any hierarchy has a group called `name`."""
    return any((hierarchy / _FAMILY / name).exists() for hierarchy in _every())


def enter_cgroup(name: str) -> None:
    """Moves this process into its own group: without one, nodes would share the groups of their services."""
    for hierarchy in _mounted():
        group = hierarchy / _FAMILY / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.procs").write_text("0")


def remove_cgroups(name: str, *, wait_seconds: float = 5.0) -> None:
    """Removes the empty groups at and below `name`, then the family's own when nothing else is in it."""
    deadline = time.monotonic() + wait_seconds
    for hierarchy in _every():
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
