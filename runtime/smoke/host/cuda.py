"""Whether all nodes have one CUDA, that which came with their torch."""

from __future__ import annotations

from runtime.smoke.host.registry import HostCheck, Nodes


def _versions(nodes: Nodes) -> dict[str, str]:
    return {host: seen.cuda for host, seen in nodes.surveys.items()}


CHECK = HostCheck(
    id="host.cuda",
    names=("cuda",),
    place=60,
    judge=lambda nodes: nodes.odd("cuda", "has CUDA", _versions(nodes)),
    evidence=lambda nodes: f"CUDA {nodes.first.cuda} on all nodes",
    not_applicable=lambda nodes: "" if any(_versions(nodes).values()) else "no node's torch came with CUDA",
)
