"""Where every rank is, from what it says: pure but for the clock readings that are passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.smoke.collectives import events
from runtime.smoke.collectives.plan import Operation
from runtime.smoke.collectives.transport import SOCKETS

# Stages before the first operation; from _FIRST on, each operation has two: begun and done.
_UNHEARD, _STARTED, _IMPORTED, _JOINED, _FIRST = range(5)
_EARLY = {events.STARTED: _STARTED, events.IMPORTED: _IMPORTED, events.JOINED: _JOINED}
_EARLY_WORDS = (
    "has not started",
    "is importing torch",
    "is joining the group",
    "has joined the group",
)


@dataclass(slots=True, kw_only=True)
class Place:
    """One rank: `stage` only grows; `round_number` counts repetitions of the present operation."""

    rank: int
    host: str
    stage: int = _UNHEARD
    round_number: int = -1
    heard_at: float | None = None


@dataclass(slots=True, kw_only=True)
class Measured:
    """What the ranks reported of one operation: seconds of its rounds, wrong contents, why left out."""

    seconds_by_rank: dict[int, list[float]] = field(default_factory=dict)
    wrong_by_rank: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    left_out: str = ""


class Progress:
    """All ranks of a smoke test and their results so far."""

    def __init__(self, hosts_by_rank: Sequence[str], plan: Sequence[Operation]) -> None:
        self.plan = tuple(plan)
        self.ranks = [Place(rank=rank, host=host) for rank, host in enumerate(hosts_by_rank)]
        self.measured = [Measured() for _ in plan]
        self.backend = ""
        self.transports: dict[int, str] = {}
        self.reached_at: dict[int, float] = {}

    def is_joining(self, rank: int) -> bool:
        """Whether a rank waits for the others to make the group."""
        return self.ranks[rank].stage == _IMPORTED

    def hear(self, rank: int, event: Mapping[str, Any], now: float) -> None:
        """Notes one event of a rank, if it can be; `now` in seconds of the launcher's clock."""
        if not self._is_possible(event):
            return
        place = self.ranks[rank]
        place.heard_at = now
        kind = event["event"]
        if kind == "beat":
            place.round_number = event["round"]
        elif kind == "begin":
            place.stage, place.round_number = _FIRST + 2 * event["operation"], -1
        elif kind == "done":
            place.stage = _FIRST + 2 * event["operation"] + 1
            self._measure(rank, event)
        elif kind == events.TRANSPORT:
            self.transports[rank] = event["name"]
        else:
            place.stage = _EARLY[kind]
            self.backend = event.get("backend", self.backend)
        self.reached_at.setdefault(self.front, now)

    def _is_possible(self, event: Mapping[str, Any]) -> bool:
        """Whether it speaks of an operation of the plan, and has times of one that was not left out."""
        if event["event"] not in ("begin", "done"):
            return True
        timed = event["event"] == "begin" or event.get("left_out") or len(event["seconds"]) > 0
        return bool(timed) and 0 <= event["operation"] < len(self.plan)

    def _measure(self, rank: int, event: Mapping[str, Any]) -> None:
        measured = self.measured[event["operation"]]
        if event.get("left_out"):
            measured.left_out = event["left_out"]
            return
        measured.seconds_by_rank[rank] = event["seconds"]
        if event["wrong"]:
            measured.wrong_by_rank[rank] = event["wrong"]

    @property
    def transports_by_host(self) -> dict[str, str]:
        """The network that NCCL took on each node; sockets where any rank there uses them."""
        found: dict[str, str] = {}
        for rank, name in self.transports.items():
            host = self.ranks[rank].host
            found[host] = found[host] if found.get(host) == SOCKETS else name
        return found

    @property
    def front(self) -> int:
        """The stage of the slowest rank: the test moves when this does."""
        return min(place.stage for place in self.ranks)

    def phases(self, started_at: float) -> dict[str, float]:
        """Seconds until every rank had started, imported torch, joined and ended, where all came so far."""
        last = _FIRST + 2 * len(self.plan) - 1
        stages = {"start": _STARTED, "import": _IMPORTED, "join": _JOINED, "collectives": last}
        seconds: dict[str, float] = {}
        for name, stage in stages.items():
            reached = [at for front, at in self.reached_at.items() if front >= stage]
            if reached:
                seconds[name] = min(reached) - started_at
                started_at = min(reached)
        return seconds

    @property
    def starting(self) -> bool:
        """Whether a rank has yet to import torch, which a cold disk makes slow."""
        return self.front < _IMPORTED

    @property
    def finished(self) -> bool:
        """Whether every rank is done with every operation."""
        return self.front == _FIRST + 2 * len(self.plan) - 1

    @property
    def done_operations(self) -> int:
        """Operations that every rank is done with."""
        return max(0, (self.front - _FIRST + 1) // 2)

    def words(self, place: Place) -> str:
        """Where a rank is, for a person."""
        if place.stage < _FIRST:
            return _EARLY_WORDS[place.stage]
        number = (place.stage - _FIRST) // 2
        state = "is done with" if (place.stage - _FIRST) % 2 else "is in"
        return f"{state} operation {number + 1} of {len(self.plan)}, {self.plan[number]}"
