"""The text of /etc/hosts: one block of all nodes, and no other line that gives a node's name an address."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from provision.roles.cluster_nodes import Node
from provision.roles.text_block import outside_block

BEGIN = "# BEGIN clusterwright: nodes of the inventory; lines between these marks are rewritten"
END = "# END clusterwright"
_LOCALHOST = "127.0.0.1 localhost"


def hosts_file(text: str, nodes: Sequence[Node], *, own: str = "") -> str:
    """`text` with the nodes' block at its end and their names taken off every other line.

    A resolver returns the first match, so that one old line (`127.0.1.1 te1`) would send every peer of a
    collective to itself (pytorch/gloo#223). Whole names are compared: a node called git has nothing to do
    with git.corp.example. Comments and lines of other names stay as they are.

    Args:
        own: the name of the node that the file lies on.

    Raises:
        BadInput: an earlier block has no end.
    """
    others = outside_block(text, BEGIN, END)
    short = short_names(nodes)
    held = {
        name
        for line in others
        for name in _names(line)
        if name in short and not _speaks_of(line, short[name], own)
    }
    given = {name: node for name, node in short.items() if name not in held}
    names = {node.name.lower() for node in nodes}
    shortened = (_without(line, names | {*_claimed(line, given, own)}) for line in others)
    kept = [line for line in shortened if line is not None]
    while kept and not kept[-1].strip():
        kept.pop()
    if not any(_gives_localhost(line) for line in kept):
        kept.insert(0, _LOCALHOST)
    return "\n".join([*kept, "", hosts_block(nodes, without=held)])


def hosts_block(nodes: Sequence[Node], *, without: Collection[str] = ()) -> str:
    """The lines of all nodes, between the marks; no short name of `without`, which others have.

    torch.distributed asks each address for its name as an IPv6 socket sees it, ::ffff:10.0.0.1 (c10d's
    socket.cpp). No name server knows that one, and each rank waits for those that do not answer: the last
    lines do, by names of their own, so that te1 itself stays one address.
    """
    short = {node.name: name for name, node in short_names(nodes).items() if name not in without}
    lines = [" ".join(filter(None, (node.address, node.name, short.get(node.name)))) for node in nodes]
    mapped = [f"::ffff:{node.address} {node.name}.mapped" for node in nodes if ":" not in node.address]
    return "".join(f"{line}\n" for line in [BEGIN, *lines, *mapped, END])


def short_names(nodes: Sequence[Node]) -> dict[str, Node]:
    """The first part of each name that has several, where no other node has it, and it reads as no number."""
    firsts = {node.name: node.name.split(".")[0] for node in nodes if "." in node.name}
    counts = Counter([*firsts.values(), *(node.name for node in nodes)])
    return {
        first: node
        for node in nodes
        if (first := firsts.get(node.name, "")) and counts[first] == 1 and not first.isdigit()
    }


def _claimed(line: str, given: Mapping[str, Node], own: str) -> list[str]:
    return [name for name in _names(line) if name in given and _speaks_of(line, given[name], own)]


def _speaks_of(line: str, node: Node, own: str) -> bool:
    """Whether a short name on the line means this node: beside its whole name, or by itself on itself."""
    return node.name.lower() in _names(line) or (node.name == own and _is_loopback(line))


def _names(line: str) -> list[str]:
    """The names that a line gives; a resolver does not tell capitals."""
    return line.partition("#")[0].lower().split()[1:]


def _is_loopback(line: str) -> bool:
    try:
        return ipaddress.ip_address(line.split()[0]).is_loopback
    except (ValueError, IndexError):
        return False


def _without(line: str, names: Collection[str]) -> str | None:
    """The line without these names, or None where no name is left on it."""
    entry, mark, comment = line.partition("#")
    words = entry.split()
    kept = [word for word in words[1:] if word.lower() not in names]
    if len(kept) == len(words[1:]):
        return line
    return " ".join([words[0], *kept, mark + comment]).rstrip() if kept else None


def _gives_localhost(line: str) -> bool:
    words = line.partition("#")[0].split()
    return len(words) > 1 and words[0].startswith("127.") and "localhost" in words[1:]
