"""What stopped the ranks of a smoke test: the one that others waited for, not the one that gave up first."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from runtime.launch.outcome import Outcome, RankEnd
from runtime.remote.session import Session
from runtime.smoke.collectives import events
from runtime.smoke.collectives.plan import operations
from runtime.smoke.collectives.progress import Progress
from runtime.smoke.collectives.stragglers import Watch
from runtime.smoke.findings import of_ranks
from tests.unit.runtime.launch.jobs import job

HOSTS = ("te1", "te1", "te2")


def ended(rank: int, status: int, said: str) -> RankEnd:
    return RankEnd(rank=rank, host=HOSTS[rank], status=status, at_seconds=1.0, tail=(said,), asked=False)


def found(heard: dict[int, str], *ends: RankEnd) -> Any:
    """The only finding; `heard` is the last stage that each rank said it had come to."""
    progress = Progress(HOSTS, operations(3, (4,)))
    watch = Watch(
        progress, timeout_seconds=30.0, on_progress=lambda progress: None, on_hang=lambda finding: None
    )
    now = time.monotonic()
    for rank, stage in heard.items():
        for event in (events.STARTED, events.IMPORTED, events.JOINED):
            progress.hear(rank, {"event": event}, now)
            if event == stage:
                break
    watch.on_tick()
    watch.on_failure(None)
    outcome = Outcome(
        hosts_by_rank=HOSTS, ranks={end.rank: end for end in ends}, nodes={}, stopped="", stop_status=0
    )
    session = cast(Session, SimpleNamespace(interrupts=[], lines={"te1": 0, "te2": 0}, job=job()))
    (finding,) = of_ranks(session, watch, outcome)
    return finding


def test_a_rank_that_did_not_come_is_named_when_others_gave_up_joining() -> None:
    gave_up = "torch.distributed.DistStoreError: Timed out after 31 seconds waiting for clients."

    finding = found(
        {0: events.IMPORTED, 1: events.IMPORTED, 2: events.STARTED},
        ended(0, 1, gave_up),
        ended(1, 1, gave_up),
    )

    assert (finding.hosts, finding.ranks) == (("te2",), (2,))
    assert "importing torch" in finding.found


def test_a_rank_that_was_killed_while_joining_is_named_itself() -> None:
    finding = found({0: events.IMPORTED, 1: events.IMPORTED, 2: events.IMPORTED}, ended(1, -9, ""))

    assert (finding.hosts, finding.ranks) == (("te1",), (1,))
    assert "SIGKILL" in finding.found


def test_a_rank_that_fails_after_joining_is_named_with_what_it_said() -> None:
    joined = dict.fromkeys(range(3), events.JOINED)

    finding = found(joined, ended(2, 1, "RuntimeError: a card fell off the bus"))

    assert finding.ranks == (2,)
    assert "a card fell off the bus" in finding.found
    assert "/data/jobs/j1/logs" in finding.fix
