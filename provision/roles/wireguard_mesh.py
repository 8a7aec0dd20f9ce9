"""The WireGuard mesh between the nodes: who is whose peer, whose key is whose, what is live of it. Pure.

Each node has one key of its own (Noise IK, https://www.wireguard.com/protocol/), and what a pair of nodes
says to each other is encrypted with keys that come of both of theirs. No secret is shared by several nodes.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PORT = 51820
UNIT = "clusterwright-wireguard-mesh.service"
GUARD = "inet clusterwright_mesh"
KEY = "/etc/wireguard/clusterwright.key"
_RULES, _KEY_BYTES, _SHOWN = 2, 32, 60
_MADE = "made"
_AGAIN = "Delete it, and the next run makes a new one"

Commands = Mapping[str, Mapping[str, Any]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A node as the others see it: its address in the mesh, and where its packets go."""

    name: str
    address: str
    endpoint: str
    port: int = PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The mesh as one node has it; `name` and `address` are that node's."""

    name: str
    interface: str
    address: str
    network: str
    port: int
    mtu: int
    peers: Sequence[Peer]

    @property
    def interface_address(self) -> str:
        """Its address with the length of the network, as `ip address` takes it."""
        return f"{self.address}/{self.network.rpartition('/')[2]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPlan:
    """The ledger as it should become, why a node's key is refused, and whether anything is to be done."""

    ledger: dict[str, str]
    problems: dict[str, list[str]]
    differs: bool


def peers_of(names: Sequence[str], variables: Mapping[str, Mapping[str, Any]]) -> list[Peer]:
    """The nodes called `names`, in that order, from each host's inventory variables."""
    return [_peer(name, variables[name]) for name in names]


def _peer(name: str, variables: Mapping[str, Any]) -> Peer:
    reached = variables.get("ansible_host", name)
    return Peer(
        name=name,
        address=str(variables.get("cluster_address", reached)),
        endpoint=str(variables.get("wireguard_mesh_endpoint", reached)),
        port=int(variables.get("wireguard_mesh_port", PORT)),
    )


def configuration(mesh: Mesh, keys: Mapping[str, str]) -> str:
    """What `wg syncconf` takes after the private key: the port, and each node whose key is known."""
    peers = [_section(peer, keys[peer.name]) for peer in mesh.peers if keys.get(peer.name)]
    head = f"# Clusterwright: see role wireguard_mesh.\n[Interface]\nListenPort = {mesh.port}\n"
    return "\n".join([head, *peers])


def _section(peer: Peer, key: str) -> str:
    endpoint = f"[{peer.endpoint}]" if ":" in peer.endpoint else peer.endpoint
    lines = (
        f"# {peer.name}",
        "[Peer]",
        f"PublicKey = {key}",
        f"AllowedIPs = {_alone(peer.address)}",
        f"Endpoint = {endpoint}:{peer.port}",
    )
    return "".join(f"{line}\n" for line in lines)


def _alone(address: str) -> str:
    """The network of one address."""
    return str(ipaddress.ip_network(address))


def plan_ledger(
    ledger: Mapping[str, str], read: Mapping[str, str], *, replaced: Collection[str]
) -> LedgerPlan:
    """Compares the public keys of nodes with those that the controller knows.

    Args:
        read: a node's public key, "" where it has none yet; behind a line `made` it was made in this run.
        replaced: nodes whose key may be another one, because the machine is.
    """
    told = {name: text.split()[-1] for name, text in read.items() if text.split()}
    keys = {name: key for name, key in told.items() if is_key(key)}
    made = {name for name, text in read.items() if text.split()[:1] == [_MADE]}
    after = {**ledger, **keys}
    problems = {
        name: [f"the public half of {KEY} is {key[:_SHOWN]!a}, which is no WireGuard key. {_AGAIN}"]
        for name, key in told.items()
        if name not in keys
    }
    for name, key in keys.items():
        found = []
        if ledger.get(name, key) != key and name not in (made | set(replaced)):
            found.append(
                f"the public half of {KEY} is {key}, the ledger holds {ledger[name]}: somebody changed it. "
                f"If you did, run once with -e '{json.dumps({'ssh_trust_replaced_nodes': [name]})}'"
            )
        if twins := sorted(other for other, held in after.items() if held == key and other != name):
            found.append(f"{twins[0]} has the same {KEY}: delete it on the machine that is a copy")
        if found:
            problems[name] = found
    return LedgerPlan(
        ledger=dict(sorted(after.items())),
        problems=problems,
        differs=after != dict(ledger) or len(keys) < len(read),
    )


def is_key(word: str) -> bool:
    """Whether this is a key as `wg` writes one: 32 bytes in base64."""
    try:
        key = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(key) == _KEY_BYTES and base64.b64encode(key).decode() == word


def refusals(observed: Mapping[str, Any], mesh: Mesh, *, paths: Sequence[str]) -> list[str]:
    """Why the mesh is not put up on a node; each says whose the thing is that stands in the way.

    Args:
        observed: `files` and `commands` of the node.
        paths: of `files`, the unit, by which the interface is ours, and what would make it another's.
    """
    commands, files = observed["commands"], observed["files"]
    ours, foreign = paths
    return [
        *_bad_key(files.get(KEY), commands),
        *_foreign_interface(commands, mesh, is_ours=files.get(ours) is not None),
        *([f"{foreign} is somebody else's: {_OTHER_NAME}"] if files.get(foreign) is not None else []),
        *_overlaps(commands, mesh),
        *_taken_port(commands, mesh),
        *_no_tun(commands),
    ]


_OTHER_NAME = "set wireguard_mesh_interface to another name"


def _bad_key(key: Mapping[str, Any] | None, commands: Commands) -> Iterator[str]:
    if key is None:
        return
    if key["mode"] != "0600" or key["owner"] != "root":
        yield f"{KEY} is {key['owner']}'s with mode {key['mode']}, so others may have read it. {_AGAIN}"
    elif commands["public"]["rc"] not in (0, 127) and "wg" not in commands["lacking"]["stdout"].split():
        yield f"{KEY} holds no WireGuard key. {_AGAIN}"


def _links(commands: Commands) -> list[Mapping[str, Any]]:
    links: list[Mapping[str, Any]] = json.loads(commands["addresses"]["stdout"] or "[]")
    return links


def _foreign_interface(commands: Commands, mesh: Mesh, *, is_ours: bool) -> Iterator[str]:
    if not is_ours and any(link["ifname"] == mesh.interface for link in _links(commands)):
        yield f"there is an interface {mesh.interface} that site.yml did not make: {_OTHER_NAME}"


def _overlaps(commands: Commands, mesh: Mesh) -> Iterator[str]:
    """Addresses and routes of others in the mesh's network, or around it; a default route is neither."""
    network = ipaddress.ip_network(mesh.network)
    for link in _links(commands):
        for entry in link.get("addr_info", []):
            if link["ifname"] != mesh.interface and _is_in(str(entry.get("local")), network):
                where = f"{link['ifname']} has {entry['local']}"
                yield f"{where}, which is of the mesh's {network}: {_OTHER_NETWORK}"
    for name in ("routes", "routes6"):
        for route in json.loads(commands[name]["stdout"] or "[]"):
            text = str(route.get("dst"))
            if route.get("dev") != mesh.interface and text != "default" and _overlap(text, network):
                where = f"{text} goes through {route.get('dev')}"
                yield f"{where}, and overlaps the mesh's {network}: {_OTHER_NETWORK}"


_OTHER_NETWORK = "set wireguard_mesh_network, and the nodes' cluster_address, to a network that nothing uses"


def _is_in(address: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False


def _overlap(text: str, network: Network) -> bool:
    try:
        other = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return other.version == network.version and other.overlaps(network)


def _taken_port(commands: Commands, mesh: Mesh) -> Iterator[str]:
    listening = commands["listening"]["stdout"]
    if listening and commands["port"]["stdout"] != str(mesh.port):
        who = listening.splitlines()[0].partition('(("')[2].partition('"')[0] or "the kernel"
        yield f"{who} listens on UDP port {mesh.port}: set wireguard_mesh_port to another one"


def _no_tun(commands: Commands) -> Iterator[str]:
    if commands["kernel"]["rc"] != 0 and commands["tun"]["rc"] != 0:
        yield (
            "its kernel has no WireGuard, and wireguard-go needs /dev/net/tun, which is not there: load the "
            "module tun, or give the container that device"
        )


def problems(commands: Commands, mesh: Mesh, keys: Mapping[str, str]) -> list[str]:
    """What is not as wanted, live and for the next boot."""
    own = keys.get(mesh.name, "")
    link = next((one for one in _links(commands) if one["ifname"] == mesh.interface), None)
    found = [
        f"its unit is {has or 'not there'}, not {want}"
        for name, want in (("enabled", "enabled"), ("active", "active"))
        if (has := commands[name]["stdout"]) != want
    ]
    if link is None:
        return [*found, f"there is no interface {mesh.interface} (journalctl -u {UNIT})"]
    if (has := commands["key"]["stdout"]) != own:
        found.append(f"its public key is {has or 'none'}, the ledger holds {own or 'none'}")
    if (has := commands["port"]["stdout"]) != str(mesh.port):
        found.append(f"it listens on UDP port {has or 'none'}, and should on {mesh.port}")
    return [*found, *_wrong_link(link, mesh), *_wrong_peers(commands, mesh, keys), *_wrong_guard(commands)]


def _wrong_link(link: Mapping[str, Any], mesh: Mesh) -> Iterator[str]:
    has = [f"{one.get('local')}/{one.get('prefixlen')}" for one in link.get("addr_info", [])]
    if mesh.interface_address not in has:
        held = ", ".join(has) or "no address"
        yield f"{mesh.interface} has {held}, and should have {mesh.interface_address}"
    if link.get("mtu") != mesh.mtu or "UP" not in link.get("flags", []):
        state = "up" if "UP" in link.get("flags", []) else "down"
        yield f"{mesh.interface} is {state} with MTU {link.get('mtu')}, and should be up with {mesh.mtu}"


def _wrong_peers(commands: Commands, mesh: Mesh, keys: Mapping[str, str]) -> Iterator[str]:
    live = dict(line.split(maxsplit=1) for line in commands["peers"]["stdout"].splitlines())
    wanted = {keys[peer.name]: peer for peer in mesh.peers if keys.get(peer.name)}
    for key, peer in wanted.items():
        if (has := live.get(key, "no peer")) != _alone(peer.address):
            yield f"its peer {peer.name} is {has}, and should be {_alone(peer.address)}"
    for key in live.keys() - wanted.keys():
        yield f"it has a peer {key} at {live[key]} that is no node"


def _wrong_guard(commands: Commands) -> Iterator[str]:
    """Who says without WireGuard that he is of the mesh is to be refused."""
    try:
        entries = json.loads(commands["guard"]["stdout"])["nftables"]
    except (ValueError, KeyError, TypeError):
        entries = []
    rules = sum("rule" in entry for entry in entries)
    if rules != _RULES:
        yield f"the table {GUARD} has {rules} rules, and should have {_RULES}"


def silent(commands: Commands, mesh: Mesh) -> list[str]:
    """The nodes that did not answer through the mesh."""
    addresses = commands["silent"]["stdout"].split()
    return [
        f"{peer.name} does not answer at {peer.address}: let UDP port {peer.port} of {peer.endpoint} through "
        "in the site's own firewall"
        for peer in mesh.peers
        if peer.address in addresses
    ]
