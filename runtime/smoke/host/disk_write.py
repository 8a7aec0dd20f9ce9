"""Disks that take no writes, or take them much more slowly than the others' do."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from runtime.smoke.host.registry import Findings, HostCheck, Nodes, Written
from runtime.smoke.network.matrix import rate_text

# Disks of one kind differ by half, and a neighbour's writing costs as much again.
_LEAST_SHARE = 0.25


def slow_disks(disks: Mapping[str, Written]) -> dict[str, tuple[str, str]]:
    """What is wrong with them, and the fix, by node."""
    rates = {host: one.rate for host, one in disks.items() if not one.problem}
    slow = {}
    for host, one in disks.items():
        others = [rate for other, rate in rates.items() if other != host]
        if one.problem:
            slow[host] = f"cannot write to {one.problem}", "See `findmnt`, `ls -ld` and `dmesg` there."
        elif len(others) >= 2 and one.rate < _LEAST_SHARE * (usual := median(others)):
            found = f"its disk writes {rate_text(one.rate)}, the others' {rate_text(usual)}"
            slow[host] = (
                found,
                "See `iostat -x 1` (who else writes?), `dmesg` and the quota of the disk there.",
            )
    return slow


def _judge(nodes: Nodes) -> Findings:
    for host, (found, fix) in slow_disks(nodes.disks).items():
        yield nodes.finding("disk write", host, found, fix)


def _evidence(nodes: Nodes) -> str:
    rates = [one.rate for one in nodes.disks.values()]
    return f"{min(rates) / 1e6:.0f} to {max(rates) / 1e6:.0f} MB/s"


CHECK = HostCheck(
    id="host.disk-write",
    names=("disk write",),
    place=220,
    judge=_judge,
    evidence=_evidence,
    of=lambda nodes: nodes.disks,
)
