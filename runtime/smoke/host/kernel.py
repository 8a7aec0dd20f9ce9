"""Whether all nodes run one Linux, by its first two numbers."""

from __future__ import annotations

from runtime.smoke.host.registry import HostCheck, Nodes


def _versions(nodes: Nodes) -> dict[str, str]:
    return {host: ".".join(seen.kernel.split(".")[:2]) for host, seen in nodes.surveys.items()}


CHECK = HostCheck(
    id="host.kernel",
    names=("kernel",),
    place=90,
    judge=lambda nodes: nodes.odd("kernel", "runs Linux", _versions(nodes)),
    evidence=lambda nodes: f"Linux {nodes.first.kernel}",
)
