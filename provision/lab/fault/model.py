"""What a fault is: a name, words that inject and clear it, and what a diagnosis must name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from provision.errors import BadInput
from provision.lab.layout import Lab, LabNode
from provision.lab.shape import Argv, Shape


class Part(StrEnum):
    """The part of the cluster that is at fault."""

    node = "node"
    send = "what the node sends"
    receive = "what the node receives"
    link = "the link of two nodes"
    direction = "one direction of the link of two nodes"
    rank = "a rank on the node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a diagnosis must name: the part (with the fault's nodes), and words that say the cause."""

    part: Part
    cause: str  # a pattern, without regard to case


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a fault is injected.

    keeper and init: the processes that hold the node's network, and the node's own process 1, as this machine
    counts them; peer_init: that of the peer, 0 while it is off. shape: the limits of the cable that a person
    asked for. groups: what limits it, control groups of version 1 by controller.
    """

    lab: Lab
    node: LabNode
    peer: LabNode | None
    value: str
    keeper: int
    init: int
    shape: Shape
    peer_init: int = 0
    groups: Mapping[str, Path] = field(default_factory=dict)

    def within(self, *words: str) -> Argv:
        """Runs words in the node, also while no ssh reaches it."""
        return within(self.init, words)

    def within_peer(self, *words: str) -> Argv:
        """The same in the peer, which is on."""
        return within(self.peer_init, words)

    @property
    def neighbour(self) -> LabNode:
        """The other end, for a fault of two nodes."""
        assert self.peer is not None
        return self.peer


def within(init: int, words: Sequence[str]) -> Argv:
    namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")
    return ("nsenter", f"--target={init}", *namespaces, "--", *words)


Words = Callable[[Target], Sequence[Argv]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to break a node.

    inject and clear: command lines; those of `clear` succeed as often as they are run, also after half of
    `inject`. default and value_pattern: of --value; None where it takes none. two_nodes: it needs a second
    node. needs_site: it breaks what site.yml makes. needs_ranks: it hits a running job. on_first: only the
    first node can have it. holds: what it has for itself on the node; two that hold the same thing cannot be
    there together. smoke_options: what the smoke test must be told to meet it.
    """

    name: str
    what: str
    named: Named
    inject: Words
    clear: Words
    default: str | None = None
    value_pattern: str = ""
    two_nodes: bool = False
    needs_site: bool = False
    needs_ranks: bool = False
    on_first: bool = False
    holds: frozenset[str] = frozenset()
    smoke_options: tuple[str, ...] = ()

    def value_of(self, asked: str | None) -> str:
        """The value to inject with.

        Raises:
            BadInput: it takes none, or not this one.
        """
        if asked is None:
            return self.default or ""
        if self.default is None or not re.fullmatch(self.value_pattern, asked):
            takes = f"it takes one such as {self.default}" if self.default else "it takes none"
            raise BadInput(f"inject {self.name} with {asked!r}", found=takes, fix="Correct --value.")
        return asked
