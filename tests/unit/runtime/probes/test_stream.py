"""One directed pair over the loopback: latency, checked contents, bandwidth, packets that pass whole."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest

from runtime.probes import stream
from runtime.probes.mtu import interface_mtu, largest_passing, path_mtu
from runtime.probes.stream import MESSAGE_BYTES, Bounds, PairResult, Target, measure
from runtime.remote import frames
from runtime.untrusted.conform import conform
from tests.conftest import RecordRefusal

TOKEN = "0123456789abcdef"
BOUNDS = Bounds(connect_seconds=0.5, latency_seconds=0.02, stream_seconds=0.2)
RELAYED_BYTES_PER_SECOND = 10e6


@pytest.fixture
def target() -> Iterator[Target]:
    target = Target("127.0.0.1", token=TOKEN)
    target.admit(["127.0.0.1", "127.0.0.2"])
    yield target
    target.close()


class Relay:
    """A way to the target that changes what passes, or slows it down; answers pass as they are."""

    def __init__(
        self, port: int, *, flip_at: int = -1, bytes_per_second: float = 0.0, most: int = 1 << 62
    ) -> None:
        self._port, self._flip_at, self._rate, self._most = port, flip_at, bytes_per_second, most
        self._server = socket.create_server(("127.0.0.1", 0))
        self.where = ("127.0.0.1", int(self._server.getsockname()[1]))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        near, _ = self._server.accept()
        with (
            near,
            self._server,
            socket.create_connection(("127.0.0.1", self._port)) as far,
            contextlib.suppress(OSError),
        ):
            back = threading.Thread(target=self._back, args=(far, near), daemon=True)
            back.start()
            self._forth(near, far)
            back.join(3)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        while data := far.recv(1 << 16):
            near.sendall(data)

    def _forth(self, near: socket.socket, far: socket.socket) -> None:
        passed, free_at = 0, 0.0
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        while data := bytearray(near.recv(1 << 13)):
            if passed <= self._flip_at < passed + len(data):
                data[self._flip_at - passed] ^= 1
            if passed + len(data) <= self._most:
                far.sendall(data)
            passed += len(data)
            if self._rate:
                free_at = max(free_at, time.monotonic()) + len(data) / self._rate
                time.sleep(max(0.0, free_at - time.monotonic()))
        far.shutdown(socket.SHUT_WR)


@pytest.mark.measures
def test_a_healthy_pair_is_measured_whole(target: Target) -> None:
    found = measure("te1", "127.0.0.2", "te2", ("127.0.0.1", target.port), BOUNDS, token=TOKEN)

    assert (found.source, found.target, found.connected, found.error) == ("te1", "te2", True, "")
    assert found.rtt_p50_s is not None
    assert found.rtt_p99_s is not None
    assert 0 < found.rtt_p50_s <= found.rtt_p99_s
    assert found.bytes_per_s is not None
    assert found.bytes_per_s > 10 * RELAYED_BYTES_PER_SECOND
    assert found.path_mtu == min(interface_mtu("lo"), 65535)
    assert conform(PairResult, json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.measures
def test_the_bandwidth_is_what_is_delivered_and_not_what_buffers_take(target: Target) -> None:
    relay = Relay(target.port, bytes_per_second=RELAYED_BYTES_PER_SECOND)

    found = measure("te1", "127.0.0.1", "te2", relay.where, BOUNDS, token=TOKEN)

    assert found.bytes_per_s is not None
    # Less on a busy machine, where the relay comes late to its turn.
    assert 0 < found.bytes_per_s < 1.1 * RELAYED_BYTES_PER_SECOND


def test_a_node_that_comes_late_is_answered_once_it_is_admitted(target: Target) -> None:
    where, late = ("127.0.0.1", target.port), ("te3", "127.0.0.3", "te1")
    refused = measure(*late, where, BOUNDS, token=TOKEN)
    target.admit(["127.0.0.3"])

    assert refused.error
    assert not refused.bytes_per_s
    assert measure(*late, where, BOUNDS, token=TOKEN).bytes_per_s


@pytest.mark.measures
def test_one_flipped_bit_is_found(target: Target) -> None:
    relay = Relay(target.port, flip_at=1_000_000)

    found = measure("te1", "127.0.0.1", "te2", relay.where, BOUNDS, token=TOKEN)

    assert found.error.startswith("other bytes arrived than were sent")
    assert found.bytes_per_s is None


def test_a_stream_of_another_pair_is_not_taken_for_this_one() -> None:
    one, other = stream._Contents("te1", "te2"), stream._Contents("te2", "te1")

    assert one.at(0, 4096) != other.at(0, 4096)
    assert one.at(5, 4096) == one.at(0, 5000)[5 : 5 + 4096]


@pytest.mark.measures
def test_a_way_that_passes_small_messages_only_carries_nothing(target: Target) -> None:
    relay = Relay(target.port, most=20 * MESSAGE_BYTES)

    hasty = replace(BOUNDS, latency_seconds=0)
    found = measure("te1", "127.0.0.1", "te2", relay.where, hasty, token=TOKEN)

    assert found.connected
    assert (found.bytes_per_s, found.error) == (0.0, "small messages pass, but nothing of a stream arrives")


@pytest.mark.measures
def test_nobody_there_and_nobody_who_answers_are_errors_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        where = ("127.0.0.1", int(silent.getsockname()[1]))
        refused = measure("te1", "127.0.0.1", "te2", where, BOUNDS, token=TOKEN)
        silent.listen()
        mute = measure("te1", "127.0.0.1", "te2", where, BOUNDS, token=TOKEN)

    assert refused == PairResult(source="te1", target="te2", connected=False, error="Connection refused")
    assert (mute.connected, mute.error) == (True, "small messages are not answered")


def lying_target(server: socket.socket, answer: bytes) -> None:
    """Does as it must until it says what arrived."""
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as lines:
        lines.read(len(TOKEN))
        lines.readline()
        while any(message := lines.read(MESSAGE_BYTES)):
            connection.sendall(message)
        connection.sendall(message)
        while lines.read(1 << 16):
            pass
        connection.sendall(answer)


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"[]\n", "what arrived should be an object, and is a list of 0"),
        (b'{"bytes": "1"}\n', "what arrived.bytes should be int"),
        (b'{"bytes": 1, "bytes_per_s": Infinity}\n', "bytes_per_s should be float, and is inf"),
        (b'{"bytes": 1, "bytes_per_s": -1}\n', "bytes_per_s should be at least 0"),
        (b'{"bytes": 1, "busy_share": NaN}\n', "busy_share should be float, and is nan"),
        (b'{"wrong": true, "right": "\\u001b[2K"}\n', "what arrived.right should be int"),
        (b"[" * 4096, "recursion"),
        (b"{}\n", "nothing of a stream arrives"),
    ],
)
def test_a_target_that_answers_anything_costs_its_own_pair_alone(
    answer: bytes, words: str, record_refusal: RecordRefusal
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lying_target, args=(server, answer), daemon=True).start()
        patient = Bounds(connect_seconds=30, latency_seconds=0, stream_seconds=0.05)
        found = measure("te1", "127.0.0.1", "te2", server.getsockname(), patient, token=TOKEN)

    record_refusal(found.error)
    assert words in found.error
    read = frames.read(frames.encode("measured", result=asdict(found)), host="te1", ranks=())
    assert read == {"kind": "measured", "result": found}


@pytest.mark.attack("node")
def test_a_target_that_floods_with_other_packets_holds_nobody(record_refusal: RecordRefusal) -> None:
    ended = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.bind(("127.0.0.1", 0))

        def run() -> None:
            _, source = flood.recvfrom(1 << 16)
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    flood.sendto(b"!", source)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        found = path_mtu("127.0.0.1", flood.getsockname(), TOKEN.encode())
        ended.set()
        thread.join()

    record_refusal(f"the largest packet that passes has {found} bytes")
    assert found == 0


@pytest.mark.attack("node")
@pytest.mark.parametrize("seconds", ["1e300", "Infinity", "-1", '"1"', "[]"])
def test_a_source_cannot_ask_for_any_time_that_it_likes(
    target: Target, seconds: str, record_refusal: RecordRefusal
) -> None:
    request = f'{{"source": "te1", "target": "te2", "seconds": {seconds}}}\n'
    with socket.create_connection(("127.0.0.1", target.port), timeout=60) as source:
        source.sendall(TOKEN.encode() + request.encode() + bytes(MESSAGE_BYTES))
        heard = b""
        with contextlib.suppress(ConnectionResetError):  # what it had said besides was not read
            heard = source.recv(1)

    record_refusal(f"recv: {heard!r}, closed")
    assert heard == b""


@pytest.mark.parametrize(
    ("own", "hole", "found"),
    [
        (1500, 1500, 1500),
        (9000, 9000, 9000),
        (9000, 1500, 1500),
        (9000, 1450, 1450),
        (1500, 1300, 1280),
        (1500, 500, 0),
    ],
)
def test_the_largest_packet_that_passes_is_found(own: int, hole: int, found: int) -> None:
    assert largest_passing(own, lambda size: size <= hole) == found


@pytest.mark.parametrize(("lost", "found"), [(1, 1500), (4, 1500), (5, 1460)])
def test_large_packets_that_were_lost_by_chance_come_through_at_last(lost: int, found: int) -> None:
    large = iter([False] * lost)

    assert largest_passing(1500, lambda size: size < 1500 or next(large, True)) == found
