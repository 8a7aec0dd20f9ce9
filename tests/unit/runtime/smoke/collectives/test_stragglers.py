"""Who holds up the smoke test, on data cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.smoke.collectives import events
from runtime.smoke.collectives.plan import operations
from runtime.smoke.collectives.progress import Progress
from runtime.smoke.collectives.stragglers import localize

CASES = Path(__file__).parents[4] / "cases" / "smoke" / "hangs.yml"
HOSTS = ("te1", "te2", "te3", "te4")
NOW = 100.0


def told_until(at: str) -> list[dict[str, Any]]:
    """What a rank says until it is at a place."""
    early = [{"event": name} for name in (events.STARTED, events.IMPORTED, events.JOINED)]
    words = at.split()
    if words[0] == "unheard":
        return []
    if words[0] in (events.STARTED, events.IMPORTED, events.JOINED):
        return early[: [events.STARTED, events.IMPORTED, events.JOINED].index(words[0]) + 1]
    begun: list[dict[str, Any]] = [*early, {"event": "begin", "operation": int(words[1])}]
    if words[0] == "done":
        begun.append({"event": "done", "operation": int(words[1]), "seconds": [0.1], "wrong": None})
    if "round" in words:
        begun.append({"event": "beat", "operation": int(words[1]), "round": int(words[3])})
    return begun


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["name"]) for case in yaml.safe_load(CASES.read_text())]
)
def test_a_hang_has_a_name(case: dict[str, Any]) -> None:
    progress = Progress(HOSTS, operations(4, [4]))
    silent = case.get("silent", {})
    silences = silent if isinstance(silent, dict) else dict.fromkeys(silent, 4.0)
    for rank, at in enumerate(case["at"]):
        heard_at = NOW - silences.get(rank, 0.3)
        for event in told_until(at):
            progress.hear(rank, event, heard_at)

    finding = localize(progress, now=NOW, waited_seconds=5.0)

    assert list(finding.ranks) == case["ranks"]
    assert finding.conclusive == case.get("certain", True)
    assert case["found"] in finding.found
    assert finding.hosts == tuple(HOSTS[rank] for rank in case["ranks"])
