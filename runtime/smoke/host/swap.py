"""Nodes whose memory lies on a disk: a rank that waits for its pages makes all others wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

from runtime.smoke.host.registry import Findings, HostCheck, Nodes, size_text
from runtime.untrusted.conform import AT_LEAST_0

_ID = "host.swap"
# Linux puts there what nobody has used for long, even where memory is free (vm.swappiness): some hundredths.
# A tenth of memory, and twice what the others have there, is memory that ran short; a quarter always is.
_ODD_SHARE, _ODD_TIMES = 0.1, 2
_MOST_SHARE = 0.25
# What a container has in swap, where /proc/swaps is its host's (admin-guide/cgroup-v2); no root has it.
_OF_CONTAINER = Path("/sys/fs/cgroup/memory.swap.current")
_FIX = (
    "See `ps -eo rss,pid,args --sort=-rss | head` and end what is left over; then `swapoff -a && swapon -a` "
    "brings back what lies on the disk."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Bytes on disks, and those of them that are in use."""

    total: Annotated[int, AT_LEAST_0]
    used: Annotated[int, AT_LEAST_0]


def parse(swaps: str, of_container: str = "") -> Swap:
    """/proc/swaps (proc(5)): a heading, then names whose last columns are size, used (KiB) and priority.

    What lies in a zram is compressed, and in memory still. `of_container` are the bytes of its cgroup's.
    """
    areas = [line.split() for line in swaps.splitlines()[1:] if not line.startswith("/dev/zram")]
    sizes, used = ([int(area[column]) << 10 for area in areas] for column in (-3, -2))
    return Swap(total=sum(sizes), used=min(sum(used), int(of_container or sum(used))))


def _probe() -> Swap:
    """A kernel without swap has no such files."""
    swaps, of_container = (
        path.read_text() if path.exists() else "" for path in (Path("/proc/swaps"), _OF_CONTAINER)
    )
    return parse(swaps, of_container)


def _judge(nodes: Nodes) -> Findings:
    swaps: Mapping[str, Swap] = nodes.probed(_ID)
    shares = {host: swap.used / max(1, nodes.surveys[host].memory_bytes) for host, swap in swaps.items()}
    for host, share in shares.items():
        found = f"{size_text(swaps[host].used)} of its memory lie on disks, {share:.0%} of what it has"
        others = [other for name, other in shares.items() if name != host]
        if others and share > max(_ODD_SHARE, _ODD_TIMES * (usual := median(others))):
            yield nodes.finding("swap", host, f"{found}; the others have {usual:.0%} there", _FIX)
        elif share > _MOST_SHARE:
            yield nodes.finding("swap", host, found, _FIX)


def _evidence(nodes: Nodes) -> str:
    return f"{size_text(max(swap.used for swap in nodes.probed(_ID).values()))} in use at most"


def _not_applicable(nodes: Nodes) -> str:
    return "" if any(swap.total for swap in nodes.probed(_ID).values()) else "no node has swap on a disk"


CHECK = HostCheck(
    id=_ID,
    names=("swap",),
    place=205,
    judge=_judge,
    evidence=_evidence,
    not_applicable=_not_applicable,
    probe=_probe,
)
