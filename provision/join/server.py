"""Listens for machines that ask who they are. Whoever asks costs a bounded amount, whatever it sends.

Bytes, time and connections are limited before anything is believed; what is not proven leaves nothing.
"""

from __future__ import annotations

import io
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any

from provision.errors import CommandFailed, ProvisionError
from provision.join import protocol

# A call with 16 host keys has 12 KiB.
_MOST_BYTES = 1 << 15
_SECONDS = 5.0
# A machine asks once at a time. All others together cannot take the places of those that are expected.
_CONNECTIONS_EACH, _CONNECTIONS_OF_OTHERS = 4, 16
_MOST_LINES = 50
_LENGTH = re.compile(r"[0-9]{1,5}", re.ASCII)

OnCall = Callable[[protocol.Letter], str]
Report = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class _Places:
    """How many connections there may be at once, by who asks."""

    expected: frozenset[str]
    taken: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    def take(self, address: str) -> bool:
        who, most = self._of(address)
        with self.lock:
            if self.taken[who] >= most:
                return False
            self.taken[who] += 1
            return True

    def give_back(self, address: str) -> None:
        with self.lock:
            self.taken[self._of(address)[0]] -= 1

    def _of(self, address: str) -> tuple[str, int]:
        if address in self.expected:
            return address, _CONNECTIONS_EACH
        return "others", _CONNECTIONS_OF_OTHERS


@dataclass(slots=True, kw_only=True)
class _Lines:
    """What a person is told: each thing once, and only so many things of one sender and of all others."""

    report: Report
    expected: frozenset[str]
    said: dict[str, set[str]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def say(self, sender: str, line: str) -> None:
        with self.lock:
            said = self.said.setdefault(sender if sender in self.expected else "others", set())
            if line not in said and len(said) < _MOST_LINES:
                said.add(line)
                self.report(line)


class _Bounded(io.RawIOBase):
    """What a connection sends: only so many bytes, and only until a deadline, however slowly they come."""

    def __init__(self, connection: socket.socket, *, most_bytes: int, seconds: float) -> None:
        self._connection, self._left = connection, most_bytes
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0 or self._left <= 0:
            raise TimeoutError("too slow, or too much")
        self._connection.settimeout(seconds)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, at: tuple[str, int], expected: Collection[str], on_call: OnCall, report: Report
    ) -> None:
        self.address_family = _family_of(at[0])
        super().__init__(at, _Handler)
        self.on_call = on_call
        self.places = _Places(expected=frozenset(expected))
        self.lines = _Lines(report=report, expected=frozenset(expected))

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.take(client_address[0]):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # there is no thread left for it
            self.places.give_back(client_address[0])
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.give_back(client_address[0])

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        self.lines.say(client_address[0], f"{client_address[0]} calls and cannot be answered: {error!r}")


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        bounded = _Bounded(self.connection, most_bytes=_MOST_BYTES, seconds=_SECONDS)
        self.rfile = io.BufferedReader(bounded)

    def handle(self) -> None:
        """Reads to the end what it answered: else the kernel takes the answer back (RFC 1122, 4.2.2.13)."""
        with suppress(OSError):  # it broke off, was too slow or sent too much
            self.handle_one_request()
            self.connection.shutdown(socket.SHUT_WR)
            while self.rfile.read1(_MOST_BYTES):
                pass

    def do_POST(self) -> None:
        sender = self.client_address[0]
        try:
            letter = self._letter(sender)
            self._say(200, "OK", self._answer(letter))
        except protocol.Refused as e:
            self.server.lines.say(sender, f"{sender} calls and is refused: {e}")
            self._say(e.status, str(e), "")
        except ProvisionError as e:
            self.server.lines.say(sender, f"{sender} calls and cannot be answered: {e}")
            self._say(500, "the controller cannot answer; it says why", "")

    def _answer(self, letter: protocol.Letter) -> str:
        """What this machine itself lacks for an answer is told; what a connection lacks is not."""
        try:
            return self.server.on_call(letter)
        except OSError as e:
            place = e.filename or "a file"
            raise CommandFailed(
                f"use {place}", found=e.strerror or str(e), fix="Correct that path, its rights or its disk."
            ) from e

    def _letter(self, sender: str) -> protocol.Letter:
        if self.path == "/nonce":
            raise protocol.Refused(
                410, "its image was baked by an earlier version, with a secret: bake it anew"
            )
        if self.path != protocol.PATH:
            raise protocol.Refused(404, "there is nothing but calls of machines here")
        text = self.rfile.read(self._length()).decode(errors="replace")
        token, mac = (self.headers.get(name, "") for name in ("X-Token", "X-Signature"))
        return protocol.Letter(sender=sender, token=token, mac=mac, text=text)

    def _length(self) -> int:
        given = self.headers.get_all("Content-Length", [])
        if len(given) != 1 or "Transfer-Encoding" in self.headers or not _LENGTH.fullmatch(given[0]):
            raise protocol.Refused(411, "it does not say once, in bytes, how long it is")
        if not 0 < int(given[0]) < _MOST_BYTES:
            raise protocol.Refused(413, f"it is empty, or has {_MOST_BYTES} bytes or more")
        return int(given[0])

    def _say(self, status: int, reason: str, text: str) -> None:
        self.connection.settimeout(_SECONDS)
        self.send_response(status, reason)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def listening(
    address: str, port: int, *, expected: Collection[str], on_call: OnCall, report: Report
) -> Iterator[int]:
    """Answers machines in threads while the block runs; gives the port (a free one for 0).

    Args:
        address: one of this machine's own; machines are told it.
        expected: the addresses that have places of their own.
        on_call: answers what came from the address that it names as its sender; raises Refused.
        report: gets a line for each thing that was refused, once.

    Raises:
        CommandFailed: it cannot listen there.
    """
    try:
        server = _Server((address, port), expected, on_call, report)
    except OSError as e:
        raise CommandFailed(
            f"listen at {address}:{port}",
            found=e.strerror or str(e),
            fix="Name an address of this machine and a free port: --address, --port.",
        ) from e
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def own_address_towards(address: str) -> str:
    """The address of this machine from which packets go to another one.

    Raises:
        CommandFailed: there is no way to it.
    """
    try:
        with socket.socket(_family_of(address), socket.SOCK_DGRAM) as way:
            way.connect((address, 9))  # nothing is sent
            return str(way.getsockname()[0])
    except OSError as e:
        raise CommandFailed(
            f"find this machine's address towards {address}",
            found=e.strerror or str(e),
            fix="Name --address.",
        ) from e
