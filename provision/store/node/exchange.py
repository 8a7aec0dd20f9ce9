"""What two holders of a tree say to each other: one asks for what it lacks, one sends it once it has it."""

from __future__ import annotations

import threading
import time
from typing import Callable, Protocol

from provision.store.node.arrival import Arrival, BadChunk
from provision.store.node.links import (
    CHUNK,
    END,
    FAULT,
    MANIFEST,
    MOST_PACKED_BYTES,
    WAIT,
    WANT,
    Frame,
    Link,
    LinkError,
    bits_of,
    numbers_in,
    send_text,
    unpacked,
)
from provision.store.node.manifest import BadManifest
from provision.store.node.store import StoreError

PING_SECONDS = 1.0

HasEnded = Callable[[], bool]


class Held(Protocol):
    """A tree, whole or arriving, from which chunks are sent."""

    changed: threading.Condition
    text: bytes
    have: bytearray
    order: list[int]  # chunks as they came

    def read(self, number: int) -> bytes: ...


class Counters:
    """Bytes of chunks that this machine sent and got, and a cap on what it sends in a second."""

    def __init__(self, bytes_per_second: float = 0.0) -> None:
        self.sent = self.got = 0
        self._rate, self._lock = bytes_per_second, threading.Lock()
        self._free_at = 0.0

    @property
    def is_capped(self) -> bool:
        return self._rate > 0

    def pace(self, size: int) -> None:
        """Waits until so many bytes may be sent."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + size / self._rate
            wait = self._free_at - now
        time.sleep(max(0.0, wait))

    def has_sent(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def has_got(self, size: int) -> None:
        with self._lock:
            self.got += size


def serve(link: Link, held: Held, counters: Counters, has_ended: HasEnded) -> None:
    """Answers who asks, until it hangs up.

    Raises:
        LinkError: the connection ended, or it asks for what is not there.
        StoreError: what is on the disk is not what it was; it was told so.
    """
    while not has_ended():
        asked = link.receive()
        if asked.kind != WANT:
            raise LinkError("the other end sends what was not agreed")
        if asked.number:
            _wait(link, held, lambda: bool(held.text), has_ended)
            send_text(link, held.text)
        else:
            _send_all(link, held, asked.data, counters, has_ended)


def _send_all(link: Link, held: Held, bits: bytes, counters: Counters, has_ended: HasEnded) -> None:
    """First what is there, then each chunk as it comes."""
    with held.changed:
        seen = len(held.order)
        ready = numbers_in(bits, len(held.have))
    pending = set(ready)
    while not has_ended():
        for number in ready:
            if number in pending and held.have[number] and not has_ended():
                _send(link, held, number, counters)
                pending.discard(number)
        if not pending:
            link.send(END)
            return
        _wait(link, held, lambda: len(held.order) > seen, has_ended)  # noqa: B023
        ready = held.order[seen:]
        seen += len(ready)


def _send(link: Link, held: Held, number: int, counters: Counters) -> None:
    try:
        data = held.read(number)
    except OSError as e:
        link.send(FAULT, data=str(e).encode(errors="replace")[:1024])
        raise StoreError(str(e)) from e
    link.send(CHUNK, number, data, counters.pace if counters.is_capped else None)
    counters.has_sent(len(data))


def _wait(link: Link, held: Held, is_there: Callable[[], bool], has_ended: HasEnded) -> None:
    """Who waits at the other end hears each second that this one is alive."""
    while not has_ended():
        with held.changed:
            if is_there() or held.changed.wait_for(is_there, PING_SECONDS):
                return
        link.send(WAIT)


def ask(link: Link, arrival: Arrival, lane: int, lanes: int, counters: Counters, has_ended: HasEnded) -> None:
    """Fetches what a lane lacks, until it has all.

    Raises:
        LinkError: the connection ended, or what came is wrong.
        StoreError: what came cannot be kept here.
    """
    while arrival.manifest is None and not has_ended():
        link.send(WANT, 1)
        packed = bytearray()
        more = True
        while more:
            frame = _next(link)
            packed += frame.data
            more = frame.number > 0
            if frame.kind != MANIFEST or len(packed) > MOST_PACKED_BYTES:
                raise LinkError("the other end sends what was not agreed")
        try:
            arrival.take_text(unpacked(bytes(packed)))
        except BadManifest as e:
            raise BadChunk(f"the manifest that came is refused: {e}") from e
    while not has_ended():
        wanted = arrival.wanted(lane, lanes)
        if not wanted:
            return
        link.send(WANT, 0, bits_of(wanted, len(arrival.have)))
        left = set(wanted)
        while (frame := _next(link)).kind != END:
            if frame.kind != CHUNK or frame.number not in left:
                raise LinkError("the other end sends what was not asked")
            arrival.put(frame.number, frame.data)
            counters.has_got(len(frame.data))
            left.discard(frame.number)
        if left:
            raise LinkError("the other end ended before it had sent what was asked")


def _next(link: Link) -> Frame:
    """The next frame that says more than that the other end is alive."""
    while True:
        frame = link.receive()
        if frame.kind == FAULT:
            said = "".join(one if one.isprintable() else "?" for one in frame.data.decode(errors="replace"))
            raise BadChunk(f"it says of itself: {said}")
        if frame.kind != WAIT:
            return frame
