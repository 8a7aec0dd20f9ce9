"""The pinned ledger of host keys (docs/adr/0009): what each node's keys were, and what they may become."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from provision.roles.cluster_nodes import SSH_PORT, Node
from provision.roles.text_block import lines_of, outside_block

Ledger = Mapping[str, Sequence[str]]
# As an earlier release began the whole file, which has no end then.
BEGIN = "# Clusterwright: host keys of all nodes"
_KEY = re.compile(r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}")
END = "# Clusterwright: end of the nodes' host keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedKey:
    """A node whose host key of one algorithm is not the one in the ledger."""

    node: str
    algorithm: str
    known: str
    found: str

    def __str__(self) -> str:
        return f"{self.node}: its {self.algorithm} host key is {self.found}, the ledger holds {self.known}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPlan:
    """The ledger as it should become, and the keys that forbid it."""

    ledger: dict[str, list[str]]
    changed: list[ChangedKey]


def public_key(text: str) -> str:
    """Algorithm and key of a public key file, without its comment; empty where it holds none."""
    key = " ".join(text.split()[:2])
    return key if _KEY.fullmatch(key) else ""


def plan_ledger(ledger: Ledger, observed: Ledger, *, replaced: Collection[str]) -> LedgerPlan:
    """Compares the keys read on the nodes with the ledger.

    A node that was not observed keeps its entry. A new algorithm is added. A key that differs from the known
    one of its algorithm is refused, unless the node is in `replaced`.
    """
    changed = [
        ChangedKey(node=node, algorithm=algorithm, known=known, found=found)
        for node, keys in sorted(observed.items())
        if node not in replaced
        for algorithm, known, found in _differences(ledger.get(node, ()), keys)
    ]
    seen = {node: sorted(keys) for node, keys in observed.items() if keys}
    return LedgerPlan(
        ledger=dict(sorted({**{k: list(v) for k, v in ledger.items()}, **seen}.items())), changed=changed
    )


def _differences(known: Sequence[str], found: Sequence[str]) -> list[tuple[str, str, str]]:
    before = dict(key.split(" ", 1) for key in known)
    now = dict(key.split(" ", 1) for key in found)
    return [
        (name, before[name], now[name]) for name in sorted(before.keys() & now) if before[name] != now[name]
    ]


def known_hosts(nodes: Sequence[Node], ledger: Ledger) -> str:
    """The lines of /etc/ssh/ssh_known_hosts for each node's keys, under its name and its address."""
    lines = [f"{_known_as(node)} {key}" for node in nodes for key in ledger.get(node.name, ())]
    return "".join(f"{line}\n" for line in [BEGIN, *lines])


def _known_as(node: Node) -> str:
    """A port that is not the usual one is part of the name (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    names = (node.name, node.address)
    return ",".join(names if node.port == SSH_PORT else (f"[{name}]:{node.port}" for name in names))


def client_ports(nodes: Sequence[Node], user: str) -> str:
    """For ssh_config(5): what leads one user to nodes whose sshd has another port than the usual.

    It follows a line that has no end yet, and has none itself; empty where all have the usual one.
    """
    by_port: dict[int, list[str]] = {}
    for node in nodes:
        by_port.setdefault(node.port, []).extend((node.name, node.address))
    return "".join(
        f"\nMatch host {','.join(dict.fromkeys(names))} localuser {user}\n  Port {port}"
        for port, names in by_port.items()
        if port != SSH_PORT
    )


def known_hosts_block(nodes: Sequence[Node], ledger: Ledger) -> str:
    """Our part of /etc/ssh/ssh_known_hosts, between its marks."""
    return f"{known_hosts(nodes, ledger)}{END}\n"


def known_hosts_file(text: str, nodes: Sequence[Node], ledger: Ledger) -> str:
    """The text of /etc/ssh/ssh_known_hosts with our part anew, after what others wrote.

    Raises:
        BadInput: others wrote, and our part has no end.
    """
    others = "".join(f"{line}\n" for line in outside_block(text, BEGIN, END))
    return f"{others}{known_hosts_block(nodes, ledger)}"


def refused_connections(messages: Mapping[str, str]) -> list[str]:
    """The nodes that answered but whose host key ssh refused, each with why and what to do.

    Args:
        messages: what ssh said, by node, for the nodes that could not be reached.
    """
    return [
        f"{node}: {reason}"
        for node, message in messages.items()
        if (reason := _reason_of_refusal(message)) is not None
    ]


def _reason_of_refusal(message: str) -> str | None:
    if "HOST IDENTIFICATION HAS CHANGED" in message:
        return (
            "its host key is not the known one. Either the machine was replaced (then correct its line in "
            "your known_hosts, and name it in ssh_trust_replaced_nodes for one run) or another one answers"
        )
    if "host key is known" in message or "Host key verification failed" in message:
        return (
            "its host key is not known here. Compare `ssh-keyscan ADDRESS | ssh-keygen -lf -` with the "
            "fingerprint that its console shows, then add the line to your known_hosts"
        )
    return None


def with_host_keys(text: str, address: str, keys: Sequence[str]) -> str:
    """A known_hosts file's text in which `address`, under all its names, has these keys alone."""
    lines = lines_of(text)
    old = [line for line in lines if _is_of(line, address)]
    names = next((field for line in old if not (field := _names(line)).startswith("|")), address)
    kept = [line for line in lines if line not in old]
    return "".join(f"{line}\n" for line in [*kept, *(f"{names} {key}" for key in keys)])


def _names(line: str) -> str:
    """The first word, as ssh reads it: blanks and tabs may stand before it and behind it."""
    return (line.split(maxsplit=1) or [""])[0]


def _is_of(line: str, address: str) -> bool:
    """Debian's ssh hides names: |1|salt|HMAC-SHA1 of the name (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    names = _names(line)
    if not names.startswith("|1|"):
        return address in names.split(",")
    try:
        salt, digest = (base64.b64decode(part) for part in names.split("|")[2:])
    except ValueError:
        return False
    return hmac.digest(salt, address.encode(), "sha1") == digest
