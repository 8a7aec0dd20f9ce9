"""Whether all nodes mean the same by every name: the odd one out by majority."""

from __future__ import annotations

from runtime.smoke.host.registry import Findings, HostCheck, Nodes


def _judge(nodes: Nodes) -> Findings:
    for name in nodes.first.addresses_by_name if nodes.surveys else ():
        meant = {host: seen.addresses_by_name.get(name, "") for host, seen in nodes.surveys.items()}
        for host, address in meant.items():
            if not address:
                yield nodes.finding(
                    "names", host, f"does not know the name {name}", "Run the role host_names."
                )
        fix = "Correct /etc/hosts there (role host_names)."
        yield from nodes.odd("names", f"resolves {name} to", meant, fix)


def _evidence(nodes: Nodes) -> str:
    return f"{len(nodes.first.addresses_by_name)} names mean the same on {len(nodes.surveys)} nodes"


CHECK = HostCheck(id="host.names", names=("names",), place=110, judge=_judge, evidence=_evidence)
