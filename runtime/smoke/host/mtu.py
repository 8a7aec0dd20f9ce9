"""Whether all nodes send packets of one size."""

from __future__ import annotations

from runtime.smoke.host.registry import HostCheck, Nodes

_FIX = "Give all interfaces, and the switch between them, one MTU (`ip link set IF mtu N`)."


def _sizes(nodes: Nodes) -> dict[str, str]:
    """Where a wrong name leads a node to its loopback, the name is the fault, not the loopback's MTU."""
    asked = {host: seen for host, seen in nodes.surveys.items() if seen.interface != "lo"}
    return {host: str(seen.mtu or "") for host, seen in asked.items()}


CHECK = HostCheck(
    id="host.mtu",
    names=("mtu",),
    place=170,
    judge=lambda nodes: nodes.odd("mtu", "sends packets of", _sizes(nodes), _FIX),
    evidence=lambda nodes: f"{nodes.first.mtu} bytes on {nodes.first.interface}",
)
