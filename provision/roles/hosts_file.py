"""The text of /etc/hosts: one block of all nodes, and no other line that gives a node's name an address."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from provision.roles.cluster_nodes import Node
from provision.roles.text_block import outside_block

BEGIN = "# BEGIN clusterwright: nodes of the inventory; lines between these marks are rewritten"
END = "# END clusterwright"
_LOCALHOST = "127.0.0.1 localhost"


def hosts_file(text: str, nodes: Sequence[Node]) -> str:
    """`text` with the nodes' block at its end and their names taken off every other line.

    A resolver returns the first match, so that one old line (`127.0.1.1 te1`) would send every peer of a
    collective to itself (pytorch/gloo#223). Comments and lines of other names stay as they are.

    Raises:
        BadInput: an earlier block has no end.
    """
    names = {node.name for node in nodes}
    others = (_without(line, names) for line in outside_block(text, BEGIN, END))
    kept = [line for line in others if line is not None]
    while kept and not kept[-1].strip():
        kept.pop()
    if not any(_gives_localhost(line) for line in kept):
        kept.insert(0, _LOCALHOST)
    return "\n".join([*kept, "", hosts_block(nodes)])


def hosts_block(nodes: Sequence[Node]) -> str:
    """The lines of all nodes, between the marks."""
    lines = [BEGIN, *(f"{node.address} {node.name}" for node in nodes), END]
    return "".join(f"{line}\n" for line in lines)


def _without(line: str, names: Collection[str]) -> str | None:
    """The line without these names, or None where no name is left on it."""
    entry, mark, comment = line.partition("#")
    words = entry.split()
    kept = [word for word in words[1:] if word.split(".")[0] not in names]
    if len(kept) == len(words[1:]):
        return line
    return " ".join([words[0], *kept, mark + comment]).rstrip() if kept else None


def _gives_localhost(line: str) -> bool:
    words = line.partition("#")[0].split()
    return len(words) > 1 and words[0].startswith("127.") and "localhost" in words[1:]
