"""The launcher's side of the control channels: one to each node of a job, their frames in one queue."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from runtime.launch import addresses, frames
from runtime.launch.argv import node_argv, ssh_argv
from runtime.launch.frames import Frame
from runtime.launch.hostfile import Host
from runtime.launch.observe import Facts
from runtime.launch.spec import Job
from runtime.launch.supervisor import Channel

TICK_SECONDS = 0.1
# A node kills what it runs when its channel closes; one that cannot be reached does so by itself, later.
_CLOSE_SECONDS = 3.0


class Interrupted(Exception):
    """A signal asked the launcher to stop before the job had begun."""


@dataclass(slots=True, kw_only=True)
class Line:
    """One node as the launcher knows it; `status` is set when its channel has ended."""

    host: str
    channel: Channel
    heard_at: float
    errors: list[str] = field(default_factory=list)
    facts: Facts | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class _Event:
    host: str
    kind: str
    value: Any


class Session:
    """Channels to the nodes of a job; `open_session` closes them."""

    def __init__(self, job: Job, *, ssh_config: str = "") -> None:
        self.job = job
        self.interrupts: list[int] = []
        self._ssh_config = ssh_config
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._pinged_at = 0.0
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
        )
        return Line(host=host.name, channel=channel, heard_at=time.monotonic())

    def _put(self, host: str, kind: str) -> Callable[[Any], None]:
        return lambda value: self._events.put(_Event(host, kind, value))

    def interrupt(self, signal_number: int) -> None:
        """Asks for an orderly end; a second time, for one without grace. Safe in a signal handler."""
        self.interrupts.append(signal_number)

    def close(self) -> None:
        """Ends every channel, and with it whatever its node still runs for us."""
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
        self, kind: str, timeout_seconds: float, *, hosts: Collection[str] | None = None
    ) -> dict[str, Frame]:
        """One frame of the kind from each of the hosts (default: all), or as many as come in time.

        A node whose channel has ended is not waited for.

        Raises:
            Interrupted: a signal came first.
        """
        found: dict[str, Frame] = {}
        wanted = self.lines if hosts is None else hosts

        def complete() -> bool:
            return all(host in found or self.lines[host].status is not None for host in wanted)

        for host, frame in self.listen(complete, timeout_seconds):
            if frame["kind"] == kind:
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
        line.heard_at = time.monotonic()
        frame = frames.decode(event.value) if event.kind == "line" else None
        if frame is not None:
            if frame["kind"] == "facts":
                line.facts = Facts(**frame["facts"])
            yield event.host, frame
        elif event.value.strip():
            line.errors.append(event.value)


@contextmanager
def open_session(job: Job, *, ssh_config: str = "") -> Iterator[Session]:
    """Channels to every node of the job, closed at the end of the block."""
    session = Session(job, ssh_config=ssh_config)
    try:
        yield session
    finally:
        session.close()
