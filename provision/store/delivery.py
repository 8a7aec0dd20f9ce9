"""These nodes shall hold this tree: the source sends it once, and each node passes on what it gets.

Every node runs its part (`node/hold.py`) at the end of a channel, and says what it has. The controller tells
each one whom to ask, sends itself to who finds nobody, and ends when all that can be reached are whole.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from provision.errors import ProvisionError
from provision.store.chain import asked_by, lanes_for, lanes_of
from provision.store.node.exchange import Counters, serve
from provision.store.node.hold import bridge
from provision.store.node.links import HAS, Link
from provision.store.node.store import StoreError
from provision.store.node_state import Said, said_in
from provision.store.program import node_program
from provision.store.source import FolderSource

_SILENCE_SECONDS = 15.0  # of a node, which says something every 2 s
_WORD_SECONDS = 5.0  # after which a node hears that the controller is there
_READY_SECONDS = 20.0  # for which those that are ready wait for the others
_AGAIN_SECONDS = 2.0
_LOOK_SECONDS = 0.2
_LINE_BYTES = 1 << 16


class Channel(Protocol):
    """A program on a node: see edges/ssh_channel.py."""

    def write(self, data: bytes) -> None: ...
    def read(self, size: int) -> bytes: ...
    def silence(self, seconds: float | None) -> None: ...
    def close(self) -> None: ...


Door = Callable[[Sequence[str]], AbstractContextManager[Channel]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is delivered, and where to.

    Attributes:
        store: the store's folder on every node.
        user: who reaches the other nodes by ssh (cluster_user).
        bytes_per_second: the most that anybody sends; 0 for no cap.
        lost_seconds: for how long a node that is not reached is tried again, and waited for at the end.
    """

    name: str
    digest: str
    store: str
    user: str
    bytes_per_second: float = 0.0
    lost_seconds: float = 20.0
    reserve_bytes: int = 1 << 30


@dataclass(slots=True, kw_only=True)
class Part:
    """A node's part: what it said last, and why it is not reached, with since when."""

    said: Said | None = None
    lost: str = ""
    lost_at: float = 0.0
    channel: Channel | None = None
    writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_whole(self) -> bool:
        return self.said is not None and self.said.state == "whole"

    @property
    def has_failed(self) -> bool:
        return self.said is not None and self.said.state == "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """How it ended: each node's last word, why others were lost, and what the source sent."""

    said: Mapping[str, Said]
    lost: Mapping[str, str]
    source_bytes: int
    seconds: float


class Delivery:
    """One tree to some nodes. `doors` open a program on each; their order is the chain's."""

    def __init__(
        self,
        plan: Plan,
        doors: Mapping[str, Door],
        source: FolderSource | None,
        on_change: Callable[[Mapping[str, Part]], None] = lambda _: None,
    ) -> None:
        self._plan, self._doors, self._source, self._on_change = plan, doors, source, on_change
        self._key = secrets.token_hex(32)
        self._parts = {name: Part() for name in doors}
        self._lanes: list[list[str]] = []
        self._counters = Counters(plan.bytes_per_second)
        self._pushes: dict[tuple[int, str], threading.Thread] = {}
        self._fault: BaseException | None = None
        self._ended = threading.Event()

    def run(self) -> Delivered:
        """Until every node is whole, has failed, or was not reached for too long.

        Raises:
            ProvisionError: the source changed while it was sent.
        """
        started = time.monotonic()
        works = [threading.Thread(target=self._follow, args=(name,), daemon=True) for name in self._doors]
        try:
            for work in works:
                work.start()
            self._wait_until_ready()
            while not self._is_over():
                self._look()
                self._on_change(self._parts)
                time.sleep(_LOOK_SECONDS)
        finally:
            self._ended.set()
            for part in self._parts.values():
                self._tell(part, {"stop": True})
        for work in works:
            work.join(_WORD_SECONDS)
        self._on_change(self._parts)
        if self._fault:
            raise self._fault
        return Delivered(
            said={name: part.said for name, part in self._parts.items() if part.said and not part.lost},
            lost={name: part.lost for name, part in self._parts.items() if part.lost},
            source_bytes=self._counters.sent,
            seconds=time.monotonic() - started,
        )

    def _wait_until_ready(self) -> None:
        """Then who has the tree already is known, and nobody calls one whose socket is not there yet."""
        deadline = time.monotonic() + _READY_SECONDS
        while any(part.said is None and not part.lost for part in self._parts.values()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        whole = {name for name, part in self._parts.items() if part.is_whole}
        self._lanes = lanes_of(list(self._doors), whole=whole)
        for name, part in self._parts.items():
            self._tell(part, {"from": asked_by(name, self._lanes)})

    def _is_over(self) -> bool:
        now = time.monotonic()
        return self._fault is not None or all(
            part.is_whole or part.has_failed or (part.lost and now - part.lost_at > self._plan.lost_seconds)
            for part in self._parts.values()
        )

    def _look(self) -> None:
        """Sees to it that who finds nobody is served: by a node that is whole, else by the source."""
        alive = {name: part for name, part in self._parts.items() if part.said and not part.lost}
        whole = [name for name, part in alive.items() if part.is_whole]
        for name, part in alive.items():
            if whole and part.said and part.said.stuck:
                self._tell(part, {"from": asked_by(name, self._lanes, whole=whole)})
        for lane, order in enumerate(self._lanes if self._source and not whole else ()):
            lacking = [name for name in order if name in alive and not alive[name].has_failed]
            stuck = [name for name in lacking if lane in _stuck_of(alive[name])]
            is_first = not any(pushed[0] == lane for pushed in self._pushes)
            for name in [*stuck, *(lacking[:1] if is_first else [])][:1]:
                self._start_push(name, lane)

    def _start_push(self, name: str, lane: int) -> None:
        """Once at a time to each node: another one that is connected, and asks elsewhere, holds none up."""
        work = self._pushes.get((lane, name))
        if work is None or not work.is_alive():
            work = threading.Thread(target=self._push, args=(name, lane), daemon=True)
            self._pushes[lane, name] = work
            work.start()

    def _push(self, name: str, lane: int) -> None:
        """Sends a node what it asks for, until it asks no more."""
        assert self._source is not None
        words = bridge(self._plan.store, self._plan.digest)
        try:
            with self._doors[name](words) as channel:
                channel.silence(None)
                link = Link(channel.read, channel.write)
                link.call(bytes.fromhex(self._key), self._plan.digest, role=HAS, lane=lane)
                watcher = threading.Thread(target=self._close_after, args=(name, channel), daemon=True)
                watcher.start()
                try:
                    serve(link, self._source, self._counters, self._ended.is_set)
                except StoreError as e:  # here, since the channel takes every error for its own
                    self._fault = ProvisionError(
                        f"send {self._source.folder}",
                        found=str(e),
                        fix="Run it again once nobody writes there; what has arrived stays.",
                    )
        except (OSError, EOFError, ProvisionError):
            return  # the node is looked at by its own channel

    def _close_after(self, name: str, channel: Channel) -> None:
        """What waits for a node that is gone, or needs no more, ends with its channel."""
        part = self._parts[name]
        while not (self._ended.wait(_LOOK_SECONDS) or part.lost or part.is_whole or part.has_failed):
            pass
        with suppress(OSError, EOFError):
            channel.close()

    def _follow(self, name: str) -> None:
        """Keeps a node at its part, and starts it again where its channel ends."""
        part = self._parts[name]
        while not self._ended.is_set():
            why = "its part ended without a word"
            try:
                with self._doors[name](("python3", "-c", node_program(), "hold")) as channel:
                    self._begin(name, part, channel)
                    self._hear(part, channel)
            except ProvisionError as e:
                why = e.found
            except (OSError, EOFError) as e:
                why = str(e) or f"it was silent for {_SILENCE_SECONDS:.0f} s"
            except ValueError as e:
                why = f"it does not answer as asked: {e}"
            part.channel = None
            if self._ended.is_set() or part.has_failed:
                return
            if not part.lost:
                part.lost_at = time.monotonic()
            part.lost = why
            self._ended.wait(_AGAIN_SECONDS)

    def _begin(self, name: str, part: Part, channel: Channel) -> None:
        plan = {
            "store": self._plan.store,
            "name": self._plan.name,
            "digest": self._plan.digest,
            "key": self._key,
            "user": self._plan.user,
            "lanes": lanes_for(len(self._doors)),
            "bytes_per_second": self._plan.bytes_per_second,
            "reserve_bytes": self._plan.reserve_bytes,
        }
        channel.silence(_SILENCE_SECONDS)
        channel.write(json.dumps(plan).encode() + b"\n")
        if self._lanes:
            channel.write(json.dumps({"from": asked_by(name, self._lanes)}).encode() + b"\n")
        part.channel = channel

    def _hear(self, part: Part, channel: Channel) -> None:
        rest, told = b"", time.monotonic()
        while piece := channel.read(_LINE_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                part.said, part.lost = said_in(line), ""
            if len(rest) > _LINE_BYTES:
                raise ValueError("a line has no end")
            if time.monotonic() - told > _WORD_SECONDS:
                told = time.monotonic()
                self._tell(part, {})

    def _tell(self, part: Part, order: Mapping[str, object]) -> None:
        """A node whose channel is gone is told again when it is back."""
        channel = part.channel
        if channel is not None:
            with suppress(OSError, EOFError), part.writing:
                channel.write(json.dumps(order).encode() + b"\n")


def _stuck_of(part: Part) -> tuple[int, ...]:
    return part.said.stuck if part.said else ()
