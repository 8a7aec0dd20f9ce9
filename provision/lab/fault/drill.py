"""Which faults a drill injects, alone and together, and whether a smoke test named them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from provision.lab.fault.catalogue import fault_called
from provision.lab.fault.model import Fault, Part
from provision.lab.layout import LabNode
from provision.smoke.result import Finding, SmokeResult


class Outcome(StrEnum):
    """named: exactly those at fault, each with its cause. cause not said: those, without it."""

    named = "named"
    in_part = "named in part"
    cause_not_said = "cause not said"
    others_blamed = "others blamed"
    inconclusive = "inconclusive"
    not_seen = "not seen"
    no_result = "no result"
    not_injected = "not injected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """A fault of the drill, with the node that it hits and, for a fault of two, the other."""

    fault: Fault
    node: LabNode
    peer: LabNode | None

    @property
    def at_fault(self) -> frozenset[str]:
        """The nodes that must be named, and no other."""
        between = self.fault.named.part in (Part.link, Part.direction) and self.peer is not None
        return frozenset({self.node.name, *([self.peer.name] if between and self.peer else [])})

    @property
    def expected(self) -> str:
        """Who must be named, in words."""
        part, peer = self.fault.named.part, self.peer.name if self.peer else ""
        return {
            Part.link: f"{self.node.name} <-> {peer}",
            Part.direction: f"{peer} -> {self.node.name}",
            Part.send: f"{self.node.name} transmit",
            Part.receive: f"{self.node.name} receive",
            Part.rank: f"the rank on {self.node.name}",
        }.get(part, self.node.name)


Case = Sequence[Injection]

# Faults that are there at once: each with the number of its node and, for a fault of two, of the other.
_SEVERAL: Sequence[Sequence[tuple[str, int, int | None]]] = (
    (("slow-link", 2, 3), ("slow-link", 1, 4)),
    (("slow-both", 2, None), ("firewall-peer", 3, 4)),
    (("slow-direction", 4, 1), ("wrong-hosts", 2, 3)),
    (("slow-cpu", 3, None), ("slow-link", 1, 2)),
    (("packet-loss", 3, None), ("firewall-peer", 1, 2)),
    (("slow-send", 2, None), ("slow-direction", 4, 1), ("other-torch", 3, None)),
    (("slow-direction", 4, 1), ("wrong-hosts", 2, 3), ("slow-disk", 3, None)),
)
LEAST_NODES = 4


def cases(faults: Sequence[Fault], nodes: Sequence[LabNode]) -> list[Case]:
    """One fault a case: at the second node, with the third as its peer; or at the first if only it can."""
    first, second, third = nodes[:3]
    return [
        (
            Injection(
                fault=fault,
                node=first if fault.on_first else second,
                peer=third if fault.two_nodes else None,
            ),
        )
        for fault in faults
    ]


def several(nodes: Sequence[LabNode]) -> list[Case]:
    """Cases of two and three faults that are there at once."""
    return [
        tuple(
            Injection(
                fault=fault_called(name), node=nodes[node - 1], peer=None if peer is None else nodes[peer - 1]
            )
            for name, node, peer in combination
        )
        for combination in _SEVERAL
    ]


def judge(case: Case, result: SmokeResult | None) -> Outcome:
    """Compares what the test found with what the catalogue says."""
    if result is None:
        return Outcome.no_result
    if result.verdict == "pass":
        return Outcome.not_seen
    blaming = [finding for finding in result.findings if finding.conclusive]
    if not blaming:
        return Outcome.inconclusive
    blamed = {host for finding in blaming for host in finding.hosts}
    at_fault = {host for injection in case for host in injection.at_fault}
    if not blamed <= at_fault:
        return Outcome.others_blamed
    if all(_is_named(injection, blaming) for injection in case):
        return Outcome.named
    if len(case) > 1:
        return Outcome.in_part
    return Outcome.cause_not_said if blamed == at_fault else Outcome.others_blamed


def _is_named(injection: Injection, blaming: Sequence[Finding]) -> bool:
    """Whether what is said of its nodes, and of no other, gives the cause and names all of them."""
    about = [finding for finding in blaming if set(finding.hosts) <= injection.at_fault]
    said = [finding for finding in about if _says(injection, finding)]
    return bool(said) and {host for finding in about for host in finding.hosts} == injection.at_fault


def _says(injection: Injection, finding: Finding) -> bool:
    return re.search(injection.fault.named.cause, finding.words, re.IGNORECASE) is not None
