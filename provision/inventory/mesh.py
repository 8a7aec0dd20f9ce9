"""What of a site's WireGuard mesh cannot be: addresses, endpoints and networks that do not fit. Pure."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.inventory.variables import Fault
from provision.roles.wireguard_mesh import PORT, Network

_LARGEST_PORT = 65535
# RFC 8200, 5: what IPv6 asks of a link; and what IPv4 can carry, less WireGuard's own 80 bytes.
_MTU = (1280, 65455)
_LONGEST_NAME = 15  # IFNAMSIZ - 1, linux/if.h


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshNode:
    """A machine: what its roles will see, and whether the inventory says its cluster_address."""

    name: str
    values: Mapping[str, Any]
    says_address: bool

    @property
    def enabled(self) -> bool:
        return self.values.get("wireguard_mesh_enabled") is True

    @property
    def address(self) -> str:
        return str(self.values.get("cluster_address", self.name))

    @property
    def endpoint(self) -> str:
        return str(self.values.get("wireguard_mesh_endpoint", self.name))

    @property
    def port(self) -> Any:
        return self.values.get("wireguard_mesh_port", PORT)


def mesh_faults(nodes: Sequence[MeshNode]) -> list[Fault]:
    """Every fault at once; none where no node has the mesh."""
    having = [node for node in nodes if node.enabled]
    if not having:
        return []
    return [*_partly(nodes, having), *_settings(having), *_networks(having), *_same_endpoint(having)]


def _partly(nodes: Sequence[MeshNode], having: Sequence[MeshNode]) -> Iterator[Fault]:
    for variable, told in (("wireguard_mesh_enabled", nodes), ("wireguard_mesh_network", having)):
        values = {str(node.values.get(variable)) for node in told}
        if len(values) > 1:
            yield Fault(
                variable=variable,
                hosts=[node.name for node in nodes],
                what=f"{variable} differs between nodes: {', '.join(sorted(values))}",
                fix="Say it once for the site, in group_vars/all.",
            )


def _settings(nodes: Sequence[MeshNode]) -> Iterator[Fault]:
    for node in nodes:
        mtu = node.values.get("wireguard_mesh_mtu")
        interface = str(node.values.get("wireguard_mesh_interface", ""))
        if isinstance(node.port, int) and not 1 <= node.port <= _LARGEST_PORT:
            yield _of(node, "wireguard_mesh_port", f"is {node.port}", f"A port is 1 to {_LARGEST_PORT}.")
        if isinstance(mtu, int) and not _MTU[0] <= mtu <= _MTU[1]:
            fix = f"{_MTU[0]} to {_MTU[1]}: that of the network below without 80 bytes."
            yield _of(node, "wireguard_mesh_mtu", f"is {mtu}", fix)
        if len(interface) > _LONGEST_NAME:
            fix = f"A name of an interface has at most {_LONGEST_NAME} characters."
            yield _of(node, "wireguard_mesh_interface", f"is '{interface}'", fix)
        if (other := str(node.values.get("cluster_interface", ""))) not in ("", interface):
            fix = "Leave it out: the mesh's interface carries cluster_address."
            yield _of(node, "cluster_interface", f"is {other}, and the mesh's is {interface}", fix)


def _networks(nodes: Sequence[MeshNode]) -> Iterator[Fault]:
    taken = {node.address for node in nodes if node.says_address}
    for node in nodes:
        text = str(node.values.get("wireguard_mesh_network", ""))
        try:
            network = ipaddress.ip_network(text)
        except ValueError as e:
            yield _of(node, "wireguard_mesh_network", f"is '{text}': {e}", "Write it as 10.88.0.0/24.")
            return
        yield from _address(node, network, taken)
        yield from _endpoint(node, network)


def _address(node: MeshNode, network: Network, taken: Collection[str]) -> Iterator[Fault]:
    """An address that is none has its problem already."""
    free = next((one for one in network.hosts() if str(one) not in taken), "")
    one = (
        f"Give it one of its own, {node.name}: {{..., cluster_address: {free}}} (node add --cluster-address)."
    )
    if not node.says_address:
        yield _of(node, "cluster_address", "is not said, and is the address in the mesh", one)
    elif (address := _read(node.address)) is not None:
        ends = (network.network_address, network.broadcast_address) if network.version == 4 else ()
        if address not in network or (address in ends and network.num_addresses > 2):
            yield _of(node, "cluster_address", f"is {address}, no address for a node in {network}", one)


def _endpoint(node: MeshNode, network: Network) -> Iterator[Fault]:
    address = _read(node.endpoint)
    fix = "Set ansible_host, or wireguard_mesh_endpoint, to its address in the network below the mesh."
    if address is None:
        yield _of(node, "wireguard_mesh_endpoint", f"is '{node.endpoint}', not an IP address", fix)
    elif address in network:
        yield _of(
            node, "wireguard_mesh_endpoint", f"is {address}, which is of the mesh itself, {network}", fix
        )


def _same_endpoint(nodes: Sequence[MeshNode]) -> Iterator[Fault]:
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes:
        holders[f"{_read(node.endpoint) or node.endpoint} port {node.port}"].append(node.name)
    for endpoint, names in holders.items():
        if len(names) > 1:
            yield Fault(
                variable="wireguard_mesh_endpoint",
                hosts=names,
                what=f"{' and '.join(names)} would be reached at one endpoint, {endpoint}",
                fix="Give each its own wireguard_mesh_endpoint, or wireguard_mesh_port behind one address.",
            )


def _read(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _of(node: MeshNode, variable: str, found: str, fix: str) -> Fault:
    return Fault(variable=variable, hosts=[node.name], what=f"{variable} of {node.name} {found}", fix=fix)
