"""Whether all nodes have one NCCL, that which came with their torch."""

from __future__ import annotations

from runtime.smoke.host.registry import HostCheck, Nodes


def _versions(nodes: Nodes) -> dict[str, str]:
    return {host: seen.nccl for host, seen in nodes.surveys.items()}


CHECK = HostCheck(
    id="host.nccl",
    names=("nccl",),
    place=70,
    judge=lambda nodes: nodes.odd("nccl", "has NCCL", _versions(nodes)),
    evidence=lambda nodes: f"NCCL {nodes.first.nccl} on all nodes",
    not_applicable=lambda nodes: "" if any(_versions(nodes).values()) else "no node's torch came with NCCL",
)
