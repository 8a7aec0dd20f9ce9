"""The listener costs a bounded amount, whatever is sent to it, and goes on answering machines."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from provision.errors import CommandFailed
from provision.join import server
from provision.join.protocol import Token, mac
from provision.join.server import listening, own_address_towards
from tests.conftest import RecordRefusal
from tests.unit.provision.join_site import Site, call, made

MIB = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = made(tmp_path)
    with found.waiting():
        yield found


def memory_bytes() -> int:
    """Of this process, the listener's threads among it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def connected(site: Site, sender: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=60, source_address=(sender, 0))


def said(site: Site, sent: bytes, sender: str = "127.0.0.1") -> bytes:
    """What comes back, to the end; nothing where the connection was dropped."""
    found = b""
    with connected(site, sender) as there, suppress(OSError):
        there.sendall(sent)
        there.shutdown(socket.SHUT_WR)
        while more := there.recv(4096):
            found += more
    return found


def request(token: Token, body: bytes, *extra: bytes, length: object = None) -> bytes:
    signed = mac(token.secret, body.decode(errors="replace"))
    lines = [
        b"POST /join HTTP/1.1",
        f"Content-Length: {len(body) if length is None else length}".encode(),
        f"X-Token: {token.id}\r\nX-Signature: {signed}".encode(),
        *extra,
    ]
    return b"\r\n".join([*lines, b"", b""]) + body


@pytest.mark.attack("network")
@pytest.mark.parametrize("length", ["-1", "+5", "5_0", "x", "", "99999", "0", "٣", "1" * 4000, "5, 5"])
def test_a_length_that_is_none_is_refused_before_anything_is_read(
    site: Site, capfd: pytest.CaptureFixture[str], length: str, record_refusal: RecordRefusal
) -> None:
    before = memory_bytes()
    with connected(site) as there:
        there.sendall(request(site.token(), b"", length=length))
        with suppress(OSError):
            for _ in range(64):
                there.sendall(bytes(MIB))

    assert memory_bytes() - before < 8 * MIB
    answer = said(site, request(site.token(), b"", length=length))
    record_refusal(answer.split(b"\r\n")[0].decode())
    assert answer[9:12] in (b"411", b"413")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("extra", [b"Transfer-Encoding: chunked", b"Content-Length: 5"])
def test_a_body_without_one_length_is_refused(site: Site, extra: bytes) -> None:
    assert said(site, request(site.token(), call().encode(), extra))[9:12] == b"411"


@pytest.mark.attack("network")
def test_who_sends_slowly_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    monkeypatch.setattr(server, "_SECONDS", 0.5)
    started = time.monotonic()
    with connected(site) as there:
        try:
            there.sendall(b"POST /join HTTP/1.1\r\n")
            while time.monotonic() - started < 60.0:
                there.sendall(b"X-A: b\r\n")
                time.sleep(0.05)
        except OSError as e:
            record_refusal(f"send: {e}")

    assert time.monotonic() - started < 30.0


@pytest.mark.attack("network")
def test_others_cannot_take_the_places_of_machines_that_are_waited_for(
    site: Site, record_refusal: RecordRefusal
) -> None:
    with ExitStack() as held:
        for number in range(300):
            held.enter_context(connected(site, f"127.0.1.{number % 200 + 1}"))
        for _ in range(100):
            held.enter_context(connected(site, "127.0.0.2"))
        threads = threading.active_count()

        assert site.ask(site.token())["name"] == "te3"
    record_refusal(f"400 connections got {threads} threads, and te3 its name")
    assert threads < 40


def fuzz(number: int, right: bytes) -> bytes:
    """Random bytes, or a real call that was altered, cut off, doubled or given another length."""
    chance = random.Random(number)
    kind = number % 5
    if kind == 0:
        return chance.randbytes(chance.randrange(400))
    if kind == 1:
        altered = bytearray(right)
        for _ in range(chance.randrange(1, 8)):
            altered[chance.randrange(len(altered))] = chance.randrange(256)
        return bytes(altered)
    if kind == 2:
        return right[: chance.randrange(len(right))]
    if kind == 3:
        length = chance.choice(
            [b"-1", b"1", b"99", b"32767", b"99999999999999999999", b"0x10", b"\xff", b"1e3"]
        )
        return right.replace(b"Content-Length: ", b"Content-Length: " + length, 1)
    return right.replace(b"\r\n", b"\r\n" + chance.randbytes(chance.randrange(40)) + b"\r\n", 2) + right


@pytest.mark.attack("network")
def test_ten_thousand_hostile_requests_change_nothing(
    site: Site,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    record_refusal: RecordRefusal,
) -> None:
    monkeypatch.setattr(server, "_SECONDS", 0.5)
    token = site.token()
    wrong = Token(id=token.id, secret="guessed", expires=0.0, machines={})
    right = request(wrong, call().encode(), b"X-More: 1")
    stored, before = site.tokens.path.read_text(), memory_bytes()

    answered = 0
    with ExitStack() as slow:
        for number in range(10_000):
            if number % 500 == 0:
                slow.enter_context(connected(site, "127.0.2.1")).sendall(right[:-5])
            answered += bool(said(site, fuzz(number, right), "127.0.0.1" if number % 2 else "127.0.1.1"))

    record_refusal(f"{answered} of 10000 answered, as {site.reported[0]!r}; none arrived")
    assert answered > 7_000  # what is no request at all is dropped without a word
    assert memory_bytes() - before < 32 * MIB
    assert capfd.readouterr().err == ""
    assert not [line for line in site.reported if "cannot be answered" in line]
    assert len(site.reported) <= 2 * 50
    assert (site.tokens.path.read_text(), site.arrived) == (stored, [])
    time.sleep(0.6)
    monkeypatch.setattr(server, "_SECONDS", 60.0)  # this process may be at the end of the queue
    assert site.ask(token)["name"] == "te3"


def test_what_cannot_be_answered_is_said_in_one_line(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    site.tokens.path.parent.mkdir(exist_ok=True)
    site.tokens.path.write_text("{")

    found = said(site, request(Token(id="i", secret="s", expires=0.0, machines={}), call().encode()))

    assert found[9:12] == b"500"
    assert ["is damaged" in line for line in site.reported] == [True]
    assert capfd.readouterr().err == ""


def test_a_file_that_the_controller_lacks_is_named_and_its_machine_hears_so(site: Site) -> None:
    """Every call was dropped without a word, until the wait ended."""
    token = site.token()
    lacks = site.machines[0].key_files[0].with_name("key.pub")
    lacks.unlink()

    found = said(site, request(token, call().encode()))

    assert found[9:12] == b"500"
    assert [str(lacks) in line for line in site.reported] == [True]


def test_a_place_where_it_cannot_listen_is_named(site: Site) -> None:
    for address, port in (("127.0.0.1", site.port), ("192.0.2.1", 0)):
        with (
            pytest.raises(CommandFailed, match=f"listen at {address}"),
            listening(address, port, expected=(), on_call=lambda _: "", report=print),
        ):
            pass


def test_the_address_towards_a_machine_is_this_machines_own() -> None:
    assert own_address_towards("127.0.0.2") == "127.0.0.1"
