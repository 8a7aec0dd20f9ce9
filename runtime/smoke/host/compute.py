"""Nodes whose processor does much less than the others' do."""

from __future__ import annotations

from statistics import median

from runtime.smoke.host.registry import Findings, HostCheck, Nodes
from runtime.smoke.network.matrix import rate_text, slow_nodes

_FIX = "See `top` and `cat /sys/fs/cgroup/cpu.stat`; clocks with `lscpu -e=cpu,mhz` there."


def _judge(nodes: Nodes) -> Findings:
    rates = nodes.compute
    for host in sorted(slow_nodes(rates)):
        others = median(rate for other, rate in rates.items() if other != host)
        found = f"its processor hashes {rate_text(rates[host])}, the others' {rate_text(others)}"
        yield nodes.finding("compute", host, found, _FIX)


def _evidence(nodes: Nodes) -> str:
    slowest, fastest = min(nodes.compute.values()), max(nodes.compute.values())
    return f"one thread hashes {slowest / 1e6:.0f} to {fastest / 1e6:.0f} MB/s"


CHECK = HostCheck(
    id="host.compute",
    names=("compute",),
    place=240,
    judge=_judge,
    evidence=_evidence,
    of=lambda nodes: nodes.compute,
)
