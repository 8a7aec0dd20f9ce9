"""The launcher's side of the control channels: one to each node of a job, their frames in one queue."""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from runtime.edges import addresses
from runtime.edges.process import Channel
from runtime.job.argv import node_argv, ssh_argv
from runtime.job.hostfile import Host
from runtime.job.spec import Job
from runtime.probes.job import Facts
from runtime.probes.preflight_checks import ranks_of
from runtime.remote import frames
from runtime.remote.frames import Frame
from runtime.untrusted.conform import Malformed

TICK_SECONDS = 0.1
# A node kills what it runs when its channel closes; one that cannot be reached does so by itself, later.
_CLOSE_SECONDS = 3.0
# Lines of one node that may wait to be heard.
_MOST_WAITING = 16
_MOST_ERRORS, _MOST_ERROR_LETTERS = 200, 2000
# EX_PROTOCOL of sysexits.h.
_MALFORMED = 76


class Interrupted(Exception):
    """A signal asked the launcher to stop before the job had begun."""


@dataclass(slots=True, kw_only=True)
class Line:
    """One node as the launcher knows it; `status` is set when its channel has ended.

    `fault` says what it sent that no node of ours would: from then on it is not heard any more.
    """

    host: str
    channel: Channel
    heard_at: float
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_ERRORS))
    facts: Facts | None = None
    status: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Event:
    host: str
    kind: str
    value: Any


class Session:
    """Channels to the nodes of a job; `open_session` closes them."""

    def __init__(self, job: Job, *, ssh_config: str = "") -> None:
        self.job = job
        # What the nodes' plain sockets ask of each other, so that a stranger gets no answer.
        self.token = secrets.token_hex(16)
        self.interrupts: list[int] = []
        self._ssh_config = ssh_config
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._room = {node.host.name: threading.Semaphore(_MOST_WAITING) for node in job.nodes}
        self._closing = threading.Event()
        self._pinged_at = 0.0
        self._ranks = ranks_of(job)
        self.lines = {node.host.name: self._open(node.host) for node in job.nodes}

    def _open(self, host: Host) -> Line:
        """A node that is an address of this machine needs no ssh."""
        here = addresses.is_own(addresses.resolve(host.name))
        python = self.job.python
        argv = node_argv(python) if here else ssh_argv(host, python=python, ssh_config=self._ssh_config)
        channel = Channel(
            argv,
            on_line=self._put(host.name, "line"),
            on_error_line=self._put(host.name, "error"),
            on_end=self._put(host.name, "end"),
            most_bytes=frames.MOST_BYTES,
        )
        return Line(host=host.name, channel=channel, heard_at=time.monotonic())

    def _put(self, host: str, kind: str) -> Callable[[Any], None]:
        """Waits while much of the node is unheard, so that a node which says more is held up by its pipe."""

        def put(value: Any) -> None:
            while kind != "end" and not self._room[host].acquire(timeout=TICK_SECONDS):
                if self._closing.is_set():
                    return
            self._events.put(_Event(host, kind, value))

        return put

    def interrupt(self, signal_number: int) -> None:
        """Asks for an orderly end; a second time, for one without grace. Safe in a signal handler."""
        self.interrupts.append(signal_number)

    def close(self) -> None:
        """Ends every channel, and with it whatever its node still runs for us."""
        self._closing.set()
        for line in self.lines.values():
            line.channel.hang_up()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for line in self.lines.values():
            line.channel.end(max(0.0, deadline - time.monotonic()))

    @property
    def facts(self) -> dict[str, Facts]:
        """What the nodes that have answered said about themselves."""
        return {host: line.facts for host, line in self.lines.items() if line.facts}

    def silent_seconds(self, host: str) -> float:
        """Time since the node was last heard over its control channel."""
        return time.monotonic() - self.lines[host].heard_at

    def send(self, host: str, kind: str, **values: Any) -> None:
        """One frame to one node."""
        self.lines[host].channel.send(frames.encode(kind, **values))

    def broadcast(self, kind: str, *, hosts: Collection[str] | None = None, **values: Any) -> None:
        """One frame to each of the hosts (default: all) that still has a channel."""
        for host in self.lines if hosts is None else hosts:
            if self.lines[host].status is None:
                self.send(host, kind, **values)

    def ping(self) -> None:
        """Tells every node, when it is time, that the launcher is still there; each answers."""
        now = time.monotonic()
        if now - self._pinged_at >= frames.PING_SECONDS:
            self._pinged_at = now
            self.broadcast("ping")

    def gather(
        self,
        kind: str,
        timeout_seconds: float,
        *,
        hosts: Collection[str] | None = None,
        fits: Callable[[str, Frame], bool] = lambda host, frame: True,
    ) -> dict[str, Frame]:
        """One frame of the kind from each of the hosts (default: all), or as many as come in time.

        A node whose channel has ended is not waited for. What does not fit the question, such as the answer
        to one before, which came too late, counts for nothing; nor does what others say unasked.

        Raises:
            Interrupted: a signal came first.
        """
        found: dict[str, Frame] = {}
        wanted = self.lines if hosts is None else hosts

        def complete() -> bool:
            return all(host in found or self.lines[host].status is not None for host in wanted)

        for host, frame in self.listen(complete, timeout_seconds):
            if frame["kind"] == kind and host in wanted and fits(host, frame):
                found[host] = frame
        return found

    def hear(self, timeout_seconds: float) -> None:
        """Waits for every node to have said what it is, or for its channel to end, no longer than that.

        Raises:
            Interrupted: a signal came first.
        """
        deque(self.listen(lambda: not self.silent, timeout_seconds), maxlen=0)

    def pause(self, seconds: float) -> None:
        """Lets time pass; the nodes hear that somebody is there.

        Raises:
            Interrupted: a signal came first.
        """
        deque(self.listen(lambda: False, seconds), maxlen=0)

    @property
    def silent(self) -> list[Line]:
        """The nodes that have not said yet what they are, and still may."""
        return [line for line in self.lines.values() if line.facts is None and line.status is None]

    def listen(self, done: Callable[[], bool], timeout_seconds: float) -> Iterator[tuple[str, Frame]]:
        """Frames as they come, until it is done, no longer than that.

        Raises:
            Interrupted: a signal came first.
        """
        deadline = time.monotonic() + timeout_seconds
        while not done():
            left = deadline - time.monotonic()
            if self.interrupts:
                raise Interrupted
            if left <= 0:
                return
            yield from self.take(left)

    def take(self, timeout_seconds: float = TICK_SECONDS) -> Iterator[tuple[str, Frame]]:
        """Waits a tick at most for the next event and notes it; yields it when it is a frame.

        What a node says it is, is kept, whoever waits for what: ssh may open long after the others' channels.
        """
        try:
            event = self._events.get(timeout=min(TICK_SECONDS, timeout_seconds))
        except queue.Empty:
            return
        line = self.lines[event.host]
        if event.kind == "end":
            line.status = event.value
            return
        self._room[event.host].release()
        if not line.fault:
            line.heard_at = time.monotonic()
            frame = self._frame(line, event)
            if frame is not None:
                yield event.host, frame

    def refuse(self, host: str, why: Malformed) -> None:
        """Ends the channel of a node that said what none of ours says."""
        line = self.lines[host]
        line.fault, line.status = f"sent what no node of ours sends: {why}", _MALFORMED
        line.channel.kill()

    def _read(self, host: str, said: bytes) -> Frame | None:
        ranks, shown = self._ranks[host], self.job.shown_ranks
        return frames.read(said, host=host, ranks=ranks, shown=shown, nodes=self.lines)

    def _frame(self, line: Line, event: _Event) -> Frame | None:
        """What a node said, noted; None where it is no frame. One that is malformed ends its channel."""
        try:
            frame = self._read(line.host, event.value) if event.kind == "line" else None
        except Malformed as e:
            self.refuse(line.host, e)
            return None
        if frame is None and (text := event.value.decode(errors="replace").rstrip()):
            line.errors.append(text[:_MOST_ERROR_LETTERS])
        elif frame is not None and frame["kind"] == "facts":
            line.facts = frame["facts"]
        return frame


@contextmanager
def open_session(job: Job, *, ssh_config: str = "") -> Iterator[Session]:
    """Channels to every node of the job, closed at the end of the block."""
    session = Session(job, ssh_config=ssh_config)
    try:
        yield session
    finally:
        session.close()
