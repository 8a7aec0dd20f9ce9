"""A connection between two holders of a tree, and what a stranger or a bad node tries on it."""

from __future__ import annotations

import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.store.node.links import (
    ASKS,
    CHUNK,
    END,
    FAULT,
    HAS,
    MANIFEST,
    WAIT,
    WANT,
    Link,
    LinkError,
    bits_of,
    numbers_in,
    unpacked,
)
from tests.conftest import RecordRefusal

KEY, DIGEST = b"k" * 32, "d" * 64


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    for end in (one, other):
        end.settimeout(5)
    with one, other:
        yield one, other


def linked(
    one: socket.socket, other: socket.socket, key: bytes = KEY, digest: str = DIGEST
) -> tuple[Link, Link]:
    """Two ends that have greeted each other; the second has this key and this digest."""
    caller, called = Link(one.recv, one.sendall), Link(other.recv, other.sendall)
    answering = threading.Thread(target=called.answer, args=(key, digest))
    answering.start()
    caller.call(KEY, DIGEST, role=ASKS)
    answering.join()
    return caller, called


def test_frames_go_both_ways(sockets: tuple[socket.socket, socket.socket]) -> None:
    caller, called = linked(*sockets)

    caller.send(WANT, 0, b"bits")
    called.send(CHUNK, 7, b"data")
    called.send(END)

    assert called.receive() == (WANT, 0, b"bits")
    assert caller.receive() == (CHUNK, 7, b"data")
    assert caller.receive() == (END, 0, b"")


@pytest.mark.attack("user")
@pytest.mark.parametrize("other", ["key", "digest"])
def test_who_lacks_the_key_or_means_another_tree_is_not_heard(
    sockets: tuple[socket.socket, socket.socket], other: str, record_refusal: RecordRefusal
) -> None:
    words = {"key": {"key": b"x" * 32}, "digest": {"digest": "e" * 64}}[other]
    caller, called = linked(*sockets, **words)  # type: ignore[arg-type]

    caller.send(WANT, 1)
    with pytest.raises(LinkError, match="does not have the key") as refused:
        called.receive()

    record_refusal(refused.value)


def twice(frame: bytes) -> bytes:
    return frame + frame


def another_chunk(frame: bytes) -> bytes:
    return frame[:5] + (8).to_bytes(4, "big") + frame[9:]


def as_a_fault(frame: bytes) -> bytes:
    return bytes([FAULT]) + frame[1:]


def too_large(frame: bytes) -> bytes:
    return frame[:1] + (1 << 31).to_bytes(4, "big") + frame[5:]


def of_no_kind(frame: bytes) -> bytes:
    return b"\x63" + frame[1:]


def cut_off(frame: bytes) -> bytes:
    return frame[:-1]


@pytest.mark.attack("user")
@pytest.mark.parametrize("spoil", [twice, another_chunk, as_a_fault, too_large, of_no_kind, cut_off])
def test_who_carries_the_frames_changes_none(
    sockets: tuple[socket.socket, socket.socket],
    spoil: Callable[[bytes], bytes],
    record_refusal: RecordRefusal,
) -> None:
    caller, called = linked(*sockets)
    kept: list[bytes] = []
    called._write = kept.append
    called.send(CHUNK, 7, b"data")

    sockets[1].sendall(spoil(b"".join(kept)))
    sockets[1].shutdown(socket.SHUT_WR)
    received = (caller.receive() for _ in range(2))
    with pytest.raises(LinkError) as refused:
        list(received)

    record_refusal(refused.value)


@pytest.mark.attack("network")
def test_a_frame_of_another_connection_does_not_count(record_refusal: RecordRefusal) -> None:
    first, second = socket.socketpair(), socket.socketpair()
    with first[0], first[1], second[0], second[1]:
        _, old = linked(*first)
        kept: list[bytes] = []
        old._write = kept.append
        old.send(END)
        caller, _ = linked(*second)

        second[1].sendall(b"".join(kept))
        with pytest.raises(LinkError) as refused:
            caller.receive()

    record_refusal(refused.value)


@given(st.binary(max_size=200))
def test_no_bytes_of_a_stranger_are_a_traceback(said: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall(said)
        other.shutdown(socket.SHUT_WR)
        with suppress(LinkError):
            link = Link(one.recv, lambda data: None)
            link.answer(KEY, DIGEST)
            link.receive()
            pytest.fail("a stranger was heard")


def test_two_that_both_ask_part(sockets: tuple[socket.socket, socket.socket]) -> None:
    one, other = sockets
    links = [Link(end.recv, end.sendall) for end in (one, other)]
    work = threading.Thread(target=lambda: suppress_all(links[1]))
    work.start()

    with pytest.raises(LinkError, match="same part"):
        links[0].call(KEY, DIGEST, role=HAS)
    work.join()


def suppress_all(link: Link) -> None:
    with suppress(LinkError):
        link.call(KEY, DIGEST, role=HAS)


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(zlib.compress(bytes(70 << 20), 9), id="a bomb"),
        pytest.param(b"no zlib", id="nothing packed"),
        pytest.param(zlib.compress(b"a" * 1000)[:-3], id="cut off"),
    ],
)
def test_a_manifest_is_unpacked_within_bounds(packed: bytes, record_refusal: RecordRefusal) -> None:
    with pytest.raises(LinkError) as refused:
        unpacked(packed)

    record_refusal(refused.value)


@given(st.sets(st.integers(0, 99)), st.integers(100, 200))
def test_bits_say_which_chunks(numbers: set[int], count: int) -> None:
    assert numbers_in(bits_of(sorted(numbers), count), count) == sorted(numbers)


def test_bits_of_another_tree_are_refused() -> None:
    with pytest.raises(LinkError, match="another tree"):
        numbers_in(os.urandom(3), 100)


def test_kinds_are_all_bounded(sockets: tuple[socket.socket, socket.socket]) -> None:
    caller, called = linked(*sockets)
    for kind in (WANT, MANIFEST, CHUNK, WAIT, END, FAULT):
        called.send(kind)
        assert caller.receive().kind == kind
