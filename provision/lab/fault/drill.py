"""Whether a smoke test named the fault that was injected. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from provision.core.smoke_result import Finding, SmokeResult
from provision.lab.fault.model import Fault, Part
from provision.lab.layout import LabNode


class Outcome(StrEnum):
    """named: exactly those at fault, with the cause. cause not said: those, without it."""

    named = "named"
    cause_not_said = "cause not said"
    others_blamed = "others blamed"
    inconclusive = "inconclusive"
    not_seen = "not seen"
    no_result = "no result"
    not_injected = "not injected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A fault of the drill, with the node that it strikes and, for a fault of two, the other."""

    fault: Fault
    node: LabNode
    peer: LabNode | None

    @property
    def expected(self) -> str:
        """Who must be named, in words."""
        part = self.fault.named.part
        if part is Part.link and self.peer is not None:
            return f"{self.node.name} <-> {self.peer.name}"
        return {
            Part.send: f"{self.node.name} transmit",
            Part.receive: f"{self.node.name} receive",
            Part.rank: f"the rank on {self.node.name}",
        }.get(part, self.node.name)


def strikes(faults: Sequence[Fault], nodes: Sequence[LabNode]) -> list[Strike]:
    """Where each fault strikes: the second node, with the third as its peer; or the first if only it can."""
    first, second, third = nodes[:3]
    return [
        Strike(
            fault=fault,
            node=first if fault.on_first else second,
            peer=third if fault.two_nodes else None,
        )
        for fault in faults
    ]


def judge(strike: Strike, result: SmokeResult | None) -> Outcome:
    """Compares what the test found with what the catalogue says."""
    if result is None:
        return Outcome.no_result
    if result.verdict == "pass":
        return Outcome.not_seen
    blaming = [finding for finding in result.findings if finding.conclusive]
    if not blaming:
        return Outcome.inconclusive
    if {host for finding in blaming for host in finding.hosts} != _at_fault(strike):
        return Outcome.others_blamed
    said = any(_says(strike, finding) for finding in blaming)
    return Outcome.named if said else Outcome.cause_not_said


def _at_fault(strike: Strike) -> set[str]:
    link = strike.fault.named.part is Part.link and strike.peer is not None
    return {strike.node.name, *([strike.peer.name] if link and strike.peer else [])}


def _says(strike: Strike, finding: Finding) -> bool:
    return re.search(strike.fault.named.cause, finding.words, re.IGNORECASE) is not None
