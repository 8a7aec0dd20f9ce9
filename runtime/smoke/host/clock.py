"""Clocks against the median of all, by more than the way of the question can explain."""

from __future__ import annotations

from statistics import median

from runtime.smoke.host.registry import Findings, HostCheck, Nodes

# chrony keeps nodes within milliseconds; munge, TLS and the order of logs suffer from more than this.
_MOST_SECONDS = 0.5


def _judge(nodes: Nodes) -> Findings:
    usual = median(clock.offset for clock in nodes.clocks.values()) if nodes.clocks else 0.0
    for host, clock in nodes.clocks.items():
        off = clock.offset - usual
        if abs(off) - clock.error > _MOST_SECONDS:
            which = "ahead" if off > 0 else "behind"
            found = f"its clock is {abs(off):.1f} s {which} (+-{clock.error:.3f} s)"
            yield nodes.finding("clock", host, found, "See `chronyc tracking` there (role time_sync).")


def _evidence(nodes: Nodes) -> str:
    offsets = [clock.offset for clock in nodes.clocks.values()]
    return f"within {max(offsets) - min(offsets):.3f} s" if offsets else "not asked"


CHECK = HostCheck(id="host.clock", names=("clock",), place=160, judge=_judge, evidence=_evidence)
