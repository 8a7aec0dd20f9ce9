"""Whether all nodes have one environment, by the digest that the role conda_env wrote."""

from __future__ import annotations

from runtime.smoke.host.registry import HostCheck, Nodes


def _digests(nodes: Nodes) -> dict[str, str]:
    return {host: seen.environment[:12] for host, seen in nodes.surveys.items()}


CHECK = HostCheck(
    id="host.environment",
    names=("environment",),
    place=50,
    judge=lambda nodes: nodes.odd("environment", "has the environment", _digests(nodes)),
    evidence=lambda nodes: f"digest {nodes.first.environment[:12]} on all {len(nodes.surveys)} nodes",
    not_applicable=lambda nodes: (
        "" if any(_digests(nodes).values()) else "no node has an environment.json (role conda_env)"
    ),
)
