"""What a job needs of a node as well; judged before any other check (runtime/probes/preflight_checks.py)."""

from __future__ import annotations

from collections.abc import Callable

from runtime.probes.job import Facts
from runtime.smoke.host.registry import HostCheck, Nodes


def _answered(nodes: Nodes) -> str:
    return f"{len(nodes.facts)} of {len(nodes.ranks)} nodes answered"


def _first(nodes: Nodes) -> Facts:
    return next(iter(nodes.facts.values()))


def _check(name: str, place: int, *names: str, evidence: Callable[[Nodes], str] = _answered) -> HostCheck:
    return HostCheck(
        id=f"host.{name}", names=names, place=place, of=lambda nodes: nodes.facts, evidence=evidence
    )


ANSWERS = _check("answers", 10, "ssh", "host key", "node")
RUNTIME = _check(
    "runtime",
    20,
    *("runtime", "clusterwright"),
    evidence=lambda nodes: f"clusterwright {_first(nodes).clusterwright}",
)
PYTHON = _check("python", 30, "python", evidence=lambda nodes: f"Python {_first(nodes).python}")
TORCH = _check("torch", 40, "torch", evidence=lambda nodes: f"torch {_first(nodes).torch} on all nodes")
FOLDERS = _check("folders", 100, "folder", "program", "job folder")
ROUTE = _check("route", 130, "route")
MEETING_POINT = _check("meeting-point", 150, "master address", "master port")
