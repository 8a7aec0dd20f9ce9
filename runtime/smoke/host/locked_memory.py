"""Whether a process may lock all the memory that an RDMA device is to read and write."""

from __future__ import annotations

from runtime.smoke.host.registry import Findings, HostCheck, Nodes, size_text

_FIX = "Run the role host_tuning (limits.conf: memlock unlimited), then log in again."


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.surveys.items():
        if seen.rdma and seen.locked_bytes >= 0:
            found = f"it has an RDMA device, and a process may lock only {size_text(seen.locked_bytes)}"
            yield nodes.finding("locked memory", host, found, _FIX)


CHECK = HostCheck(
    id="host.locked-memory",
    names=("locked memory",),
    place=190,
    judge=_judge,
    evidence=lambda _: "unlimited",
    not_applicable=lambda nodes: (
        "" if any(seen.rdma for seen in nodes.surveys.values()) else "no RDMA device on any node"
    ),
)
