"""One direction of one pair of nodes over plain sockets: latency, checked bandwidth, path MTU.

The source drives: it connects, says in one line what it will do, exchanges small messages, sends a stream
whose every byte the target knows. The target's clock and count give the bandwidth: what was delivered, not
what was handed to a buffer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Any

from runtime.edges.addresses import answer_each, family_of, receive
from runtime.probes.mtu import answer_to, is_request, path_mtu
from runtime.untrusted.conform import AT_LEAST_0, between, conform

MESSAGE_BYTES = 64
# A median of fewer would be a matter of luck on a busy machine.
_FEWEST_MESSAGES = 10
_CHUNK_BYTES = 1 << 18
# Prime, so that a chunk that is lost, doubled or swapped never leaves the same bytes in place.
_PERIOD = 1_048_573
# Of a stream's time: slow start, and what a shaper's bucket lets through at once (tc-tbf(8)).
_WARM_UP = 0.2
# The target waits this long beyond the stream's time for what is still on its way.
_DRAIN_SECONDS = 0.8
_FIRST_BYTE_SECONDS = 2.0
# Keeps what waits in the sender's own buffer small, so that a slow link is not drained for seconds (tcp(7)).
_UNSENT_BYTES = 1 << 17
_NOTSENT_LOWAT = 25
# struct tcp_info of linux/tcp.h: tcpi_total_retrans and tcpi_data_segs_out, 32 bits each.
_RETRANSMITS_AT, _SEGMENTS_AT = 100, 156
# Of any stream: who asks a target for more would hold it.
_MOST_SECONDS = 60.0
_Measure = Annotated[float, AT_LEAST_0]
_Count = Annotated[int, AT_LEAST_0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long the parts of one measurement may take, in seconds."""

    connect_seconds: float
    latency_seconds: float
    stream_seconds: float

    @property
    def most_seconds(self) -> float:
        """What one measurement takes at most."""
        return 3 * self.connect_seconds + self.latency_seconds + self.stream_seconds + 2 * _DRAIN_SECONDS + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """One ordered pair. Times in seconds, None where it did not come to them; `bytes_per_s` as delivered.

    `retransmits` are the source's TCP segments sent again, `resent_share` their part of all that it sent;
    `path_mtu` the largest packet in bytes that arrived whole with fragmentation forbidden, 0 where none did.
    `busy_share` is the part of the stream's time for which an end worked or waited for a processor, of the
    busier end (/proc/PID/schedstat): near 1 the processor was the limit.
    """

    source: str
    target: str
    connected: bool
    rtt_p50_s: _Measure | None = None
    rtt_p99_s: _Measure | None = None
    bytes_per_s: _Measure | None = None
    retransmits: _Count | None = None
    resent_share: _Measure | None = None
    path_mtu: _Count | None = None
    busy_share: _Measure | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What the source will do: the pair, whose stream the target then knows, and how long it sends."""

    source: str
    target: str
    seconds: Annotated[float, between(0, _MOST_SECONDS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivered:
    """What the target counted; nothing where its answer did not come."""

    bytes: _Count = 0
    bytes_per_s: _Measure = 0.0
    wrong: bool = False
    right: int = -1
    busy_share: _Measure = 0.0


class _Contents:
    """The endless stream of one ordered pair: windows into one periodic block, never copied."""

    def __init__(self, source: str, target: str) -> None:
        block = hashlib.shake_128(f"{source}>{target}".encode()).digest(_PERIOD)
        self._block = memoryview(block + block[:_CHUNK_BYTES])

    def at(self, offset: int, count: int) -> memoryview:
        """`count` bytes, at most a chunk, of the stream from `offset` on."""
        start = offset % _PERIOD
        return self._block[start : start + count]


class Target:
    """Answers measurements on a TCP port that the kernel picks, packets on the UDP port of that number.

    Whoever does not know the run's token, or asks from an address that was not admitted, gets no answer.
    """

    def __init__(self, address: str, *, token: str) -> None:
        self._token, self._peers = token.encode(), set[str]()
        self._tcp, self._udp = _same_port(address)
        self.port: int = self._tcp.getsockname()[1]
        answer = partial(_answer, token=self._token)
        answer_all = partial(answer_each, self._tcp, answer, senders=self._peers)
        threading.Thread(target=answer_all, daemon=True).start()
        threading.Thread(target=self._echo_packets, daemon=True).start()

    def admit(self, peers: Collection[str]) -> None:
        """Answers these from now on, beside those before: nodes that come late are measured as well."""
        self._peers.update(peers)

    def _echo_packets(self) -> None:
        """A request's size goes back, in a few bytes: only the way there is measured."""
        while True:
            try:
                data, sender = self._udp.recvfrom(1 << 16)
                if sender is None:
                    return
                if sender[0] in self._peers and is_request(data, self._token):
                    self._udp.sendto(answer_to(data), sender)
            except OSError:
                if self._udp.fileno() < 0:
                    return

    def close(self) -> None:
        """Ends both; shutdown wakes the threads."""
        for server in (self._tcp, self._udp):
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()


def _same_port(address: str) -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket and a UDP socket with one number."""
    for _ in range(64):
        tcp = socket.socket(family_of(address), socket.SOCK_STREAM)
        tcp.bind((address, 0))
        udp = socket.socket(family_of(address), socket.SOCK_DGRAM)
        try:
            udp.bind((address, tcp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
            continue
        tcp.listen(128)
        return tcp, udp
    raise OSError("no port number is free for both TCP and UDP")


def _answer(connection: socket.socket, token: bytes) -> None:
    """The target's side of one measurement; a source that leaves or lies only ends its own."""
    with connection:
        connection.settimeout(3.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if not compare_digest(receive(connection, len(token)), token):
                return
            with connection.makefile("rb", buffering=0) as lines:
                request: _Request = conform(_Request, json.loads(lines.readline(4096)))
            while (message := receive(connection, MESSAGE_BYTES)) != bytes(MESSAGE_BYTES):
                connection.sendall(message)
            connection.sendall(message)
            delivered = _take_in(connection, _Contents(request.source, request.target), request.seconds)
            connection.sendall(f"{json.dumps(asdict(delivered))}\n".encode())
        except (OSError, ValueError, RecursionError):
            return


def _take_in(connection: socket.socket, contents: _Contents, seconds: float) -> _Delivered:
    """Receives and checks the stream until its end or its time is over; the clock runs from the first byte.

    The time of a stall counts: what loss holds back comes at once when the hole is filled. After a wrong byte
    it reads on: closing over unread data is a reset, and the source learns nothing.
    """
    buffer = bytearray(_CHUNK_BYTES)
    total, counted, right = 0, 0, -1
    busy = _busy_seconds()
    began = warm_at = ended = 0.0
    while not began or ended - began < seconds + _DRAIN_SECONDS:
        connection.settimeout(began + seconds + _DRAIN_SECONDS - ended if began else _FIRST_BYTE_SECONDS)
        try:
            count = connection.recv_into(buffer)
        except TimeoutError:
            count = 0
        ended = time.monotonic()
        if not count:
            break
        if not began:
            began, warm_at = ended, ended + _WARM_UP * seconds
        if right < 0 and not buffer.startswith(contents.at(total, count)):
            right = total
        total += count
        counted += count if ended > warm_at else 0
    rate = counted / (ended - warm_at) if counted else total / max(seconds, ended - began)
    share = (_busy_seconds() - busy) / max(seconds, ended - began)
    return _Delivered(bytes=total, bytes_per_s=rate, wrong=right >= 0, right=right, busy_share=share)


def measure(
    source: str, own_address: str, target: str, where: tuple[str, int], bounds: Bounds, *, token: str
) -> PairResult:
    """From this node to the one that listens at `where`; whatever goes wrong is the result's error."""
    known: dict[str, Any] = {"connected": False}
    try:
        with socket.create_connection(
            where, timeout=bounds.connect_seconds, source_address=(own_address, 0)
        ) as connection:
            known["connected"] = True
            connection.sendall(token.encode())
            known |= {"path_mtu": path_mtu(own_address, where, token.encode())}
            known |= _latency(connection, source, target, bounds)
            known |= _bandwidth(connection, _Contents(source, target), bounds)
    except TimeoutError:
        known["error"] = "small messages are not answered" if known["connected"] else "no answer in time"
    except (OSError, ValueError, RecursionError) as e:
        known["error"] = getattr(e, "strerror", None) or str(e)
    return PairResult(source=source, target=target, **known)


def _latency(connection: socket.socket, source: str, target: str, bounds: Bounds) -> dict[str, Any]:
    """Round trips of small messages, one at a time; the first one is not counted."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = {"source": source, "target": target, "seconds": bounds.stream_seconds}
    connection.sendall(f"{json.dumps(request)}\n".encode())
    seconds: list[float] = []
    deadline = time.perf_counter() + bounds.latency_seconds
    while len(seconds) <= _FEWEST_MESSAGES or time.perf_counter() < deadline:
        _round_trip(connection, (len(seconds) + 1).to_bytes(MESSAGE_BYTES, "big"), seconds)
    _round_trip(connection, bytes(MESSAGE_BYTES), seconds)
    counted = sorted(seconds[1:])
    return {"rtt_p50_s": counted[len(counted) // 2], "rtt_p99_s": counted[int(0.99 * len(counted))]}


def _round_trip(connection: socket.socket, message: bytes, seconds: list[float]) -> None:
    started = time.perf_counter()
    connection.sendall(message)
    if receive(connection, MESSAGE_BYTES) != message:
        raise ValueError("other bytes came back than were sent")
    seconds.append(time.perf_counter() - started)


def _bandwidth(connection: socket.socket, contents: _Contents, bounds: Bounds) -> dict[str, Any]:
    """Sends for the stream's time, then asks the target what arrived."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)
    busy = _busy_seconds()
    _send_for(connection, contents, bounds.stream_seconds)
    busy = _busy_seconds() - busy
    connection.shutdown(socket.SHUT_WR)
    resent = _resent(connection)
    connection.settimeout(2 * _DRAIN_SECONDS)
    try:
        with connection.makefile("rb", buffering=0) as lines:
            delivered = conform(_Delivered, json.loads(lines.readline(4096) or b"{}"), "what arrived")
    except TimeoutError:
        delivered = _Delivered()
    share = max(busy / bounds.stream_seconds, delivered.busy_share)
    return {**resent, "busy_share": min(1.0, share), **_judged(delivered)}


def _judged(delivered: _Delivered) -> dict[str, Any]:
    if delivered.wrong:
        return {"error": f"other bytes arrived than were sent, after {delivered.right} right ones"}
    if not delivered.bytes:
        return {"bytes_per_s": 0.0, "error": "small messages pass, but nothing of a stream arrives"}
    return {"bytes_per_s": delivered.bytes_per_s}


def _send_for(connection: socket.socket, contents: _Contents, seconds: float) -> None:
    """As much as the connection takes in the time."""
    total, deadline = 0, time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            total += connection.send(contents.at(total, _CHUNK_BYTES))
        except TimeoutError:
            return


def _busy_seconds() -> float:
    """How long this thread has run, or been ready to while others ran; 0 where the kernel does not count."""
    try:
        worked, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
        return (int(worked) + int(waited)) / 1e9
    except (OSError, ValueError):
        return 0.0


def _resent(connection: socket.socket) -> dict[str, Any]:
    """What the kernel says of segments sent again; nothing where it is too old to."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < _SEGMENTS_AT + 4:
        return {}
    again, sent = (int(struct.unpack_from("=I", info, at)[0]) for at in (_RETRANSMITS_AT, _SEGMENTS_AT))
    return {"retransmits": again, "resent_share": again / sent if sent else 0.0}
