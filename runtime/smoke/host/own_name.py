"""Whether a node's own name leads others to it; one machine alone may well call itself loopback."""

from __future__ import annotations

from runtime.edges.addresses import is_loopback
from runtime.smoke.host.registry import Findings, HostCheck, Nodes

_FIX = "Remove that line from /etc/hosts (role host_names)."


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.surveys.items() if len(nodes.surveys) > 1 else ():
        if seen.interface != "lo" and seen.own_address and is_loopback(seen.own_address):
            means = f"its own name {seen.hostname} means {seen.own_address} there"
            yield nodes.finding("own name", host, f"{means}, which no other node can reach", _FIX)


CHECK = HostCheck(
    id="host.own-name",
    names=("own name",),
    place=120,
    judge=_judge,
    evidence=lambda _: "no node calls itself by a loopback address",
)
