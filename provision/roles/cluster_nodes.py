"""The nodes of a cluster as an inventory describes them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SSH_PORT = 22
# What `environment_prefix` reads.
ENVIRONMENT_VARIABLES = (
    "cluster_environment_prefix",
    "cluster_environment_name",
    "cluster_data_path",
    "miniconda_prefix",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine: name, address in the cluster's network, ranks and interface ("" = not said).

    A node that is drained is one of the cluster, and takes no new jobs. `port`: where the others reach its
    sshd.
    """

    name: str
    address: str
    slots: int = 1
    interface: str = ""
    drained: bool = False
    port: int = SSH_PORT


def nodes_of(names: Sequence[str], variables: Mapping[str, Mapping[str, Any]]) -> list[Node]:
    """The nodes called `names`, in that order, from each host's inventory variables.

    An address is `cluster_address`, else `ansible_host`, else the name.
    """
    return [_node(name, variables[name]) for name in names]


def environment_prefix(variables: Mapping[str, Any]) -> str:
    """Where the environment of jobs lies on a node, as role cluster has it by default."""
    name, data = variables.get("cluster_environment_name", "llm"), variables.get("cluster_data_path", "/data")
    conda = variables.get("miniconda_prefix", f"{data}/miniconda3")
    return str(variables.get("cluster_environment_prefix", f"{conda}/envs/{name}"))


def normal_address(text: str) -> str:
    """One spelling for each address: fd88:0:0::12 is fd88::12. What is no address stays as it is."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _node(name: str, variables: Mapping[str, Any]) -> Node:
    return Node(
        name=name,
        address=normal_address(str(variables.get("cluster_address", variables.get("ansible_host", name)))),
        slots=int(variables.get("cluster_slots", 1)),
        interface=str(variables.get("cluster_interface", "")),
        drained=bool(variables.get("cluster_drained", False)),
        port=_port(variables),
    )


def _port(variables: Mapping[str, Any]) -> int:
    """Of the nodes among themselves; where none is said it is the one that the controller uses."""
    stated = (variables.get(name) for name in ("cluster_ssh_port", "ansible_port", "ansible_ssh_port"))
    return int(next((port for port in stated if port), SSH_PORT))
