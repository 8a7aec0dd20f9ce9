"""A job that runs: its orders sent, its output handed on, its end decided and waited for."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from runtime.job import spec
from runtime.launch.outcome import TIMED_OUT, NodeEnd, Outcome, RankEnd
from runtime.remote.frames import Frame
from runtime.remote.session import Session

GRACE_SECONDS = 10.0
# After the first failure others are about to report theirs; the first cause is chosen among them.
_SETTLE_SECONDS = 1.0
# What a node may need, beyond the grace, to report the end of its part; less when a job is cut short.
_FAREWELL_SECONDS = 5.0
_CURT_FAREWELL_SECONDS = 1.0


class Watcher(Protocol):
    """Sees a job while it runs."""

    def on_text(self, rank: int, piece: str) -> None:
        """Output of a rank: a line, or a piece that ends with a carriage return."""

    def on_tick(self) -> str:
        """Called about ten times a second; a reason kills the job now, empty text lets it run."""

    def on_failure(self, outcome: Outcome) -> None:
        """What is known when the job has failed and is about to be stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why the launcher ends a job, the status that it then exits with, and the grace for the ranks."""

    reason: str
    status: int
    grace_seconds: float


def run(session: Session, watcher: Watcher) -> Outcome:
    """Starts the job on every node and follows it to its end; `check_nodes` has passed."""
    first = session.facts[session.job.nodes[0].host.name]
    where, port = first.master_address, first.master_port
    for order in spec.orders(session.job, master_addr=where, master_port=port):
        session.send(order.host, "start", order=asdict(order))
    job = _Run(session=session, started_at=time.monotonic())
    while not job.finished():
        for host, frame in session.take():
            job.hear(host, frame, watcher)
        session.ping()
        job.note_lost()
        stop = job.decide(watcher)
        if stop is not None:
            if job.failed_at is not None and job.stopped is None:
                watcher.on_failure(job.outcome())
            job.stop(stop)
    return job.outcome()


@dataclass(slots=True, kw_only=True)
class _Run:
    """What is known of a running job."""

    session: Session
    started_at: float
    ranks: dict[int, RankEnd] = field(default_factory=dict)
    nodes: dict[str, NodeEnd] = field(default_factory=dict)
    standing: dict[int, str] = field(default_factory=dict)
    failing: set[int] = field(default_factory=set)
    looked: bool = False
    failed_at: float | None = None
    stopped: Stop | None = None
    give_up_at: float | None = None

    def hear(self, host: str, frame: Frame, watcher: Watcher) -> None:
        if frame["kind"] == "lines":
            for piece in frame["pieces"]:
                watcher.on_text(frame["rank"], piece)
        elif frame["kind"] == "failing":
            # Whoever is asked to end leaves a dump as well.
            if self.stopped is None:
                self.failing.add(frame["rank"])
                self._note_failure()
        elif frame["kind"] == "exit":
            self._note_rank(host, frame)
        elif frame["kind"] == "looked":
            self.standing |= {one.rank: one.state for one in frame["standing"]}
        elif frame["kind"] == "ended":
            self._note_node(host, ok=frame["ok"], found="did not end well", tail=frame["tail"])

    def _note_rank(self, host: str, frame: Frame) -> None:
        self.ranks[frame["rank"]] = RankEnd(
            rank=frame["rank"],
            host=host,
            status=frame["status"],
            at_seconds=time.monotonic() - frame["age"],
            tail=frame["tail"],
            asked=self.stopped is not None,
            calls=frame["calls"],
        )
        if frame["status"] != 0:
            self._note_failure()

    def _note_node(self, host: str, *, ok: bool, found: str, tail: tuple[str, ...]) -> None:
        self.nodes[host] = NodeEnd(
            host=host,
            ok=ok,
            found=found,
            at_seconds=time.monotonic(),
            asked=self.stopped is not None,
            tail=tail,
        )
        if not ok:
            self._note_failure()

    def _note_failure(self) -> None:
        if self.failed_at is None:
            self.failed_at = time.monotonic()

    def note_lost(self) -> None:
        """A channel that ended before its node reported an end."""
        for host, line in self.session.lines.items():
            if line.status is not None and host not in self.nodes:
                found = line.fault or "was lost: its control channel ended"
                self._note_node(host, ok=False, found=found, tail=tuple(line.errors)[-5:])

    def decide(self, watcher: Watcher) -> Stop | None:
        """Whether the job is to be stopped now, and why: a signal, a limit, its watcher, or a failure."""
        interrupts = self.session.interrupts
        if self.stopped is not None:
            again = len(interrupts) > 1 and self.stopped.grace_seconds > 0
            return replace(self.stopped, grace_seconds=0) if again else None
        if self._all_well():
            return Stop(reason="", status=0, grace_seconds=0)
        if interrupts:
            reason = f"signal {interrupts[0]} reached the launcher"
            return Stop(reason=reason, status=128 + interrupts[0], grace_seconds=GRACE_SECONDS)
        limit = self.session.job.timeout_seconds
        if limit and time.monotonic() - self.started_at > limit:
            reason = f"the job was still running after {limit:g} s (--timeout)"
            return Stop(reason=reason, status=TIMED_OUT, grace_seconds=GRACE_SECONDS)
        if reason := watcher.on_tick():
            return Stop(reason=reason, status=1, grace_seconds=0)
        waited = time.monotonic() - self.failed_at if self.failed_at is not None else 0.0
        if waited > _SETTLE_SECONDS / 2 and not self.looked:
            self.looked = True
            self.session.broadcast("look")
        if waited > _SETTLE_SECONDS and self._somebody_failed():
            return Stop(reason="", status=1, grace_seconds=GRACE_SECONDS)
        return None

    def _somebody_failed(self) -> bool:
        """An end that was bad; a rank that only said that it fails may still think better of it."""
        ranks = any(end.status != 0 for end in self.ranks.values())
        return ranks or any(not end.ok for end in self.nodes.values())

    def _all_well(self) -> bool:
        """Every rank has succeeded: what they left behind, and their store, have nothing left to do."""
        ends = self.ranks.values()
        return len(ends) == self.session.job.world_size and all(end.status == 0 for end in ends)

    def stop(self, stop: Stop) -> None:
        self.stopped = stop
        cut_short = bool(stop.reason) and not stop.grace_seconds
        farewell = _CURT_FAREWELL_SECONDS if cut_short else _FAREWELL_SECONDS
        self.give_up_at = time.monotonic() + stop.grace_seconds + farewell
        self.session.broadcast("stop", grace=stop.grace_seconds)

    def finished(self) -> bool:
        """Every node has reported its end, or the time for that is over."""
        late = self.give_up_at is not None and time.monotonic() > self.give_up_at
        return late or all(host in self.nodes for host in self.session.lines)

    def outcome(self) -> Outcome:
        return Outcome(
            hosts_by_rank=self.session.job.hosts_by_rank(),
            ranks=dict(self.ranks),
            nodes=dict(self.nodes),
            stopped=self.stopped.reason if self.stopped else "",
            stop_status=self.stopped.status if self.stopped else 0,
            standing={
                rank: state
                for rank, state in self.standing.items()
                if (rank not in self.ranks or self.ranks[rank].asked) and rank not in self.failing
            },
            failing=frozenset(self.failing),
        )
