"""Listens for machines that ask who they are; every request and every answer is signed with one secret."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from provision.core import join

_MOST_BYTES = 1 << 16
_MOST_NONCES = 4096

OnCall = Callable[[join.Call], Mapping[str, str]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], secret: str, on_call: OnCall) -> None:
        super().__init__(address, _Handler)
        self.secret, self.on_call = secret, on_call
        self.nonces: dict[str, None] = {}
        self.lock = Lock()

    def nonce(self) -> str:
        with self.lock:
            while len(self.nonces) >= _MOST_NONCES:
                del self.nonces[next(iter(self.nonces))]
            new = secrets.token_hex(16)
            self.nonces[new] = None
            return new

    def take(self, nonce: str) -> bool:
        with self.lock:
            return self.nonces.pop(nonce, "absent") is None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _MOST_BYTES))
        text = body.decode(errors="replace")
        if not join.is_signed(self.server.secret, text, self.headers.get("X-Signature", "")):
            self.send_error(403, "not signed with our secret")
            return
        try:
            self._say(text, {"nonce": self.server.nonce()} if self.path == "/nonce" else self._answer(text))
        except ValueError as e:
            self.send_error(400, str(e))

    def _answer(self, text: str) -> Mapping[str, str]:
        call = join.parse(text)
        if not self.server.take(call.nonce):
            raise ValueError("its nonce is not ours, or was used before")
        if call.address != self.client_address[0]:
            raise ValueError(f"it comes from {self.client_address[0]} and says {call.address}")
        return self.server.on_call(call)

    def _say(self, asked: str, answer: Mapping[str, str]) -> None:
        said = json.dumps(answer)
        self.send_response(200)
        self.send_header("X-Signature", join.signature(self.server.secret, asked + said))
        self.send_header("Content-Length", str(len(said.encode())))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def listening(address: str, port: int, *, secret: str, on_call: OnCall) -> Iterator[int]:
    """Answers machines in a thread while the block runs; gives the port (a free one for 0).

    Args:
        on_call: gets each call that is signed, new, and from the address that it names.
    """
    with _Server((address, port), secret, on_call) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
