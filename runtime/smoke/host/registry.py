"""What a check of hosts is, what it judges, and all of them: every module of this folder holds one. Pure.

A node runs the probes of these checks, so nothing here or in a check may import torch.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from runtime.probes.finding import Finding, of_node
from runtime.probes.gpu import Gpu, Gpus
from runtime.probes.host import Files, Survey
from runtime.probes.job import Facts
from runtime.probes.preflight_checks import odd_ones
from runtime.untrusted.conform import conform

Findings = Iterator[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A node's clock against the launching machine's, in seconds, and how far off that may be."""

    offset: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Bytes in a second that a node writes to the disk that jobs use, or why it cannot."""

    rate: float
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """What the nodes that answered said, by name; `compute` in bytes a second, `disks` what they wrote.

    `ranks` are those that each node of the test is to hold, also one that is silent.
    """

    ranks: Mapping[str, tuple[int, ...]]
    facts: Mapping[str, Facts] = field(default_factory=dict)
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    compute: Mapping[str, float] = field(default_factory=dict)
    disks: Mapping[str, Written] = field(default_factory=dict)
    files: Mapping[str, Files] = field(default_factory=dict)

    @property
    def first(self) -> Survey:
        """What one of them says, which counts for all where none is odd."""
        return next(iter(self.surveys.values()))

    @property
    def gpus(self) -> dict[str, Gpus]:
        """What the drivers say."""
        return {host: seen.gpus for host, seen in self.surveys.items()}

    @property
    def cards(self) -> list[tuple[str, Gpu]]:
        """Each GPU with its node."""
        return [(host, card) for host, seen in self.gpus.items() for card in seen.cards]

    def probed(self, check: str) -> dict[str, Any]:
        """What the probe of the check with that id gave on each node, of the type that it returns."""
        return {host: seen.probed[check] for host, seen in self.surveys.items() if check in seen.probed}

    def finding(self, check: str, host: str, found: str, fix: str) -> Finding:
        """What speaks against a node."""
        return of_node(check, host, self.ranks[host], found, fix)

    def odd(self, check: str, says: str, values: Mapping[str, str], fix: str = "") -> Findings:
        """Nodes whose value is not the majority's; nodes without one do not vote."""
        votes = {host: value for host, value in values.items() if value}
        for _, host, found, usual_fix in odd_ones(check, says, votes):
            yield self.finding(check, host, found, fix or usual_fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCheck:
    """A check of the first stage.

    `names` are those that its findings carry, `place` its position in the report (ascending). `judge` speaks
    against nodes; `evidence` is what was seen where nothing was found, told where there is what it is `of`;
    `not_applicable` is why there is nothing to judge, empty where there is. `probe` runs on each node
    beside the survey, for a second at most and without changing anything; what it returns is held against
    the type that it is annotated with.
    """

    id: str
    names: tuple[str, ...]
    place: int
    judge: Callable[[Nodes], Iterable[Finding]] = lambda _: ()
    evidence: Callable[[Nodes], str]
    of: Callable[[Nodes], Sized] = lambda nodes: nodes.surveys
    not_applicable: Callable[[Nodes], str] = lambda _: ""
    probe: Callable[[], Any] | None = None


@cache
def host_checks() -> tuple[HostCheck, ...]:
    """Those of every module of this folder, in the order of the report."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [import_module(f"{__package__}.{name}") for name in names]
    checks = [value for module in modules for value in vars(module).values() if isinstance(value, HostCheck)]
    return tuple(sorted(checks, key=lambda check: (check.place, check.id)))


def probes() -> dict[str, Callable[[], Any]]:
    """What checks ask of a node beyond the survey, by their ids."""
    return {check.id: check.probe for check in host_checks() if check.probe}


def conforming(survey: Survey) -> Survey:
    """The survey, what the probes gave among it as what they return.

    Raises:
        Malformed: it is of another type.
    """
    kinds = {check: get_type_hints(probe, include_extras=True)["return"] for check, probe in probes().items()}
    given = {check: value for check, value in survey.probed.items() if check in kinds}
    return replace(survey, probed={check: conform(kinds[check], given[check], check) for check in given})


def unprobed(nodes: Nodes) -> Findings:
    """Nodes that cannot tell what a check asks, or whose version does not know what it asks."""
    names = {check.id: check.names[0] for check in host_checks()}
    for host, seen in nodes.surveys.items():
        if unknown := probes().keys() - {*seen.probed, *seen.unprobed}:
            found = f"its clusterwright does not know what is asked for {', '.join(sorted(unknown))}"
            yield nodes.finding("clusterwright", host, found, "Run the role runtime for it.")
        for check in sorted(probes().keys() & seen.unprobed.keys()):
            found = f"what {check} asks cannot be told there: {seen.unprobed[check]}"
            yield nodes.finding(names[check], host, found, "See that file there, as the user of jobs.")


def judge(nodes: Nodes) -> tuple[Finding, ...]:
    """Everything that the checks say against nodes."""
    return tuple(finding for check in host_checks() for finding in check.judge(nodes))


def evidence(nodes: Nodes) -> dict[str, str]:
    """What the checks saw where they found nothing, by their ids."""
    told = (check for check in host_checks() if (nodes.probed(check.id) if check.probe else check.of(nodes)))
    return {check.id: check.evidence(nodes) for check in told}


def not_applicable(nodes: Nodes) -> dict[str, str]:
    """The checks that have no object on these nodes, with the reason."""
    known = (check for check in host_checks() if not check.probe or nodes.probed(check.id))
    return {check.id: reason for check in known if (reason := check.not_applicable(nodes))}


def size_text(count: int) -> str:
    """Bytes for a person."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"
