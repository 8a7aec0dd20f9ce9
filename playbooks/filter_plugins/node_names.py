"""Names and addresses of nodes, under the names that the roles use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from provision.roles.cluster_nodes import Node, normal_address
from provision.roles.hosts_file import hosts_block, hosts_file, short_names

Dicts = Sequence[Mapping[str, Any]]


def hosts_file_with(text: str, nodes: Dicts, own: str) -> str:
    return hosts_file(text, [Node(**node) for node in nodes], own=own)


def hosts_block_of(nodes: Dicts) -> str:
    return hosts_block([Node(**node) for node in nodes])


def short_names_by_domain(nodes: Dicts) -> dict[str, list[str]]:
    """For each domain of nodes the short names in it."""
    found: dict[str, list[str]] = {}
    for short, node in short_names([Node(**node) for node in nodes]).items():
        found.setdefault(node.name.partition(".")[2], []).append(short)
    return found


def own_addresses(observed: Mapping[str, Any]) -> list[str]:
    """The addresses to which a node's own name leads, from getent."""
    lines = observed["commands"]["own_address"]["stdout"].splitlines()
    return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "hosts_block": hosts_block_of,
            "hosts_file_with": hosts_file_with,
            "normal_address": normal_address,
            "own_addresses": own_addresses,
            "short_names_by_domain": short_names_by_domain,
        }
