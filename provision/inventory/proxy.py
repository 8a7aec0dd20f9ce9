"""What of a site's proxy cannot be. No problem repeats its address, which may hold a password. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provision.inventory.variables import Fault
from provision.roles.proxy import direct_fault, proxy_fault

Hosts = Mapping[str, tuple[frozenset[str], Mapping[str, Any]]]


def proxy_faults(hosts: Hosts) -> Iterator[Fault]:
    """Each fault once, with the machines that it concerns."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for host, (_, values) in hosts.items():
        for fault in _of(values):
            found.setdefault(fault, []).append(host)
    for (variable, what, fix), names in found.items():
        yield Fault(variable=variable, hosts=names, what=what, fix=fix)


def _of(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    proxy, direct = values.get("cluster_proxy"), values.get("cluster_no_proxy", ())
    if isinstance(proxy, str) and proxy and (wrong := proxy_fault(proxy)):
        fix = "Write http://proxy.corp.example:3128, USER:PASSWORD@ before the host where it asks for them."
        yield "cluster_proxy", f"cluster_proxy cannot be used: {wrong}", fix
    for entry in direct if isinstance(direct, list | tuple) else ():
        if wrong := direct_fault(str(entry)):
            yield (
                "cluster_no_proxy",
                f"cluster_no_proxy lists {str(entry)!r}: {wrong}",
                "Name mirror.corp.example, .corp.example for all below it, or 10.0.0.9.",
            )
