"""Who may open connections to the ports of jobs: the rules, what is live of them, whom they would cut off.

Only the first packet of a TCP connection is judged, by itself: nothing is tracked, what is open stays open,
and a packet that no rule names passes. UDP is left alone: no job listens there, VPNs and mosh do.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TABLE = "inet clusterwright"
_CHAINS = ("input", "forward", "output")
_VERSIONS = {4: ("ip", "ipv4_addr", ""), 6: ("ip6", "ipv6_addr", "6")}
_REJECT = "counter reject with icmpx type admin-prohibited"
_OPENS = "tcp flags & (syn | ack) == syn tcp dport @ports tcp dport != @open_ports"
# What each chain asks of a packet beside where it comes from.
_ASKED = {"input": 'iifname != "lo" ', "forward": "", "output": ""}
_LOOPBACK = re.compile(r"(?:127\.[0-9.]+|\[::1\])(?:%lo)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Addresses of nodes, networks admitted beside them, ports ("8000", "8000-8999"), numbers of users."""

    nodes: Sequence[str]
    admitted: Sequence[str]
    ports: Sequence[str]
    open_ports: Sequence[str]
    users: Sequence[int]


def members_text(nodes: Sequence[str], admitted: Sequence[str]) -> str:
    """The file that changes with the nodes: who may connect, and where."""
    sets = [
        line
        for version, (_, kind, suffix) in _VERSIONS.items()
        for line in (
            _set(f"nodes{suffix}", kind, _of_version(nodes, version)),
            _set(f"admitted{suffix}", f"{kind}; flags interval; auto-merge", _of_version(admitted, version)),
        )
    ]
    return _file(["# Clusterwright: see role job_firewall.", f"table {TABLE} {{", *sets, "}"])


def rules_text(fence: Fence, members_path: str) -> str:
    """The file that makes the table anew, in one step: the kernel takes all of it or nothing."""
    ports = "inet_service; flags interval; auto-merge"
    return _file(
        [
            "# Clusterwright: see role job_firewall. This table is ours, and no other is touched.",
            f"table {TABLE}",
            f"delete table {TABLE}",
            f'include "{members_path}"',
            f"table {TABLE} {{",
            _set("ports", ports, fence.ports),
            _set("open_ports", ports, fence.open_ports),
            _set("users", "uid", map(str, fence.users)),
            *(line for chain in _CHAINS for line in _chain(chain)),
            "}",
        ]
    )


def _file(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _set(name: str, kind: str, elements: Iterable[str]) -> str:
    listed = ", ".join(elements)
    return f"  set {name} {{ type {kind}; {f'elements = {{ {listed} }}; ' if listed else ''}}}"


def _of_version(networks: Iterable[str], version: int) -> list[str]:
    return [text for text in networks if ipaddress.ip_network(text, strict=False).version == version]


def _chain(name: str) -> Iterator[str]:
    yield f"  chain {name} {{"
    yield f"    type filter hook {name} priority filter - 10; policy accept;"
    for family, _, suffix in _VERSIONS.values():
        stranger = _stranger(name, family, suffix)
        yield f"    {_ASKED[name]}{_OPENS} {family} daddr @nodes{suffix} {stranger} {_REJECT}"
    yield "  }"


def _stranger(chain: str, family: str, suffix: str) -> str:
    """For what leaves this node a user, else a machine. What has no user, as NFS has none, is no stranger."""
    if chain == "output":
        return "meta skuid != @users"
    return f"{family} saddr != @nodes{suffix} {family} saddr != @admitted{suffix}"


def live_differences(listed: str, fence: Fence) -> list[str]:
    """What is not as wanted in what `nft --json list table` prints; empty text is no table."""
    try:
        entries = json.loads(listed)["nftables"]
    except (ValueError, KeyError, TypeError):
        return [f"there is no table {TABLE}"]
    found = {entry["set"]["name"]: entry["set"].get("elem", []) for entry in entries if "set" in entry}
    return [*_set_differences(found, fence), *_chain_differences(entries)]


def _set_differences(found: Mapping[str, Sequence[Any]], fence: Fence) -> Iterator[str]:
    for name, wanted in (("nodes", fence.nodes), ("admitted", fence.admitted)):
        live = [_network(one) for one in (*found.get(name, ()), *found.get(f"{name}6", ()))]
        if (have := _networks(live)) != (want := _networks(wanted)):
            yield f"{name} are {_listed(have)}, and should be {_listed(want)}"
    for name, ports in (("ports", fence.ports), ("open_ports", fence.open_ports)):
        if (held := merged(map(_port, found.get(name, ())))) != (asked := merged(ports)):
            yield f"{name} are {_listed(held)}, and should be {_listed(asked)}"
    if (users := sorted(found.get("users", ()))) != (named := sorted(set(fence.users))):
        yield f"users are {_listed(users)}, and should be {_listed(named)}"


def _chain_differences(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for name in _CHAINS:
        hooks = [
            entry["chain"].get("hook") for entry in entries if entry.get("chain", {}).get("name") == name
        ]
        rules = [entry for entry in entries if entry.get("rule", {}).get("chain") == name]
        if hooks != [name] or len(rules) != len(_VERSIONS):
            yield f"its chain {name} has {len(rules)} rules, and should have {len(_VERSIONS)}"


def _network(element: Any) -> str:
    if isinstance(element, dict) and "prefix" in element:
        return f"{element['prefix']['addr']}/{element['prefix']['len']}"
    if isinstance(element, dict) and "range" in element:
        return "-".join(element["range"])
    return str(element)


def _networks(texts: Iterable[str]) -> list[str]:
    """Each as it is written in full, those that follow each other joined, as nft joins them."""
    networks = [one for text in texts for one in _parts(text)]
    return [
        str(one)
        for version in _VERSIONS
        for one in ipaddress.collapse_addresses([each for each in networks if each.version == version])  # type: ignore[type-var]
    ]


def _parts(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    first, dash, last = text.partition("-")
    if not dash:
        return [ipaddress.ip_network(text, strict=False)]
    ends = (ipaddress.ip_address(first), ipaddress.ip_address(last))
    return list(ipaddress.summarize_address_range(*ends))


def _port(element: Any) -> str:
    return "-".join(map(str, element["range"])) if isinstance(element, dict) else str(element)


def merged(ports: Iterable[str]) -> list[str]:
    """Ranges of ports in their order, those that touch joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(_ends(text) for text in ports):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return [str(low) if low == high else f"{low}-{high}" for low, high in joined]


def _ends(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def refusals(
    commands: Mapping[str, Mapping[str, Any]], fence: Fence, *, is_ours: bool, may_lack: bool
) -> list[str]:
    """Why the rules must not be loaded, each with what to do; none once they are ours and can be.

    Args:
        commands: rc, stdout and stderr of `table` (nft), `users` (id) and `listening` (ss).
        is_ours: the role has been here before; what listens now may be jobs.
        may_lack: programs and users may be still to come.
    """
    found = [] if may_lack else list(_lacking(commands))
    if is_ours:
        return found
    if commands["table"]["rc"] == 0:
        found.append(
            f"there is a table {TABLE} that this role has not made: remove it, or leave job_firewall out"
        )
    if cut := _cut_off(commands["listening"]["stdout"], fence):
        found.append(
            f"{', '.join(cut)} would be reached by the cluster's nodes only: add the port to "
            "job_firewall_open_ports, or who calls to job_firewall_admitted, or set job_firewall_enabled "
            "to false"
        )
    return found


def _lacking(commands: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if commands["table"]["rc"] == 127:
        yield "there is no nft: add nftables to base_packages_names, or set job_firewall_enabled to false"
    if commands["users"]["rc"] != 0:
        yield f"job_firewall_users: {commands['users']['stderr']}"


def _cut_off(listening: str, fence: Fence) -> list[str]:
    """Programs that others reach now and would not any more.

    Where somebody outside the cluster is admitted, the site has thought of them.
    """
    if fence.admitted:
        return []
    return sorted({line for line in _listeners(listening) if _is_fenced(int(line.split()[-1]), fence)})


def _listeners(listening: str) -> Iterator[str]:
    """`PROGRAM on port N` of each socket that another machine may reach."""
    for line in listening.splitlines():
        words = line.split(maxsplit=5)
        address, _, port = words[3].rpartition(":")
        if not _LOOPBACK.fullmatch(address):
            program = re.search(r'\(\("([^"]*)"', line)
            yield f"{program[1] if program else 'the kernel'} on port {port}"


def _is_fenced(port: int, fence: Fence) -> bool:
    return _holds(fence.ports, port) and not _holds(fence.open_ports, port)


def _holds(ports: Iterable[str], port: int) -> bool:
    return any(low <= port <= high for low, high in map(_ends, ports))
