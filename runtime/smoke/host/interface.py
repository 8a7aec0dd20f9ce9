"""Jobs that a node sends elsewhere than over the cluster's address: the others must be there as well.

A second network for data is one that most nodes are in; a container engine's bridge has the same address
on every node, or is the only one of its network.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_interface

from runtime.smoke.host.registry import Findings, HostCheck, Nodes

_FIX = "Run the role collective_network, or correct /etc/clusterwright/job.env there."


def _judge(nodes: Nodes) -> Findings:
    addresses = {host: seen.job_address for host, seen in nodes.surveys.items() if seen.job_address}
    networks = Counter(str(ip_interface(address).network) for address in addresses.values())
    usual = {network for network, count in networks.items() if count > len(nodes.surveys) / 2}
    for host, seen in nodes.surveys.items():
        if not seen.job_interface or seen.job_interface == seen.interface:
            continue
        same = [
            other for other, address in addresses.items() if other != host and address == seen.job_address
        ]
        if not seen.job_address:
            why = "which is not there, or has no address"
        elif same:
            why = f"whose address {seen.job_address} {', '.join(same)} has as well"
        elif usual and str(ip_interface(seen.job_address).network) not in usual:
            why = f"at {seen.job_address}; those of the others are in {', '.join(usual)}"
        else:
            continue
        yield nodes.finding(
            "interface", host, f"jobs use the interface {seen.job_interface} there, {why}", _FIX
        )


def _not_applicable(nodes: Nodes) -> str:
    addressed = any(seen.job_address for seen in nodes.surveys.values())
    return "" if addressed else "no node's interface for jobs has an IPv4 address"


CHECK = HostCheck(
    id="host.interface",
    names=("interface",),
    place=140,
    judge=_judge,
    evidence=lambda nodes: f"jobs use {nodes.first.job_interface} ({nodes.first.job_address})",
    not_applicable=_not_applicable,
)
