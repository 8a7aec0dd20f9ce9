"""Every node to every other over plain sockets, on the kind of port that jobs use, before any torch starts.

A firewall that lets ssh through and drops the rest costs Gloo 40 s and names nobody; here it costs 3 s.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from hmac import compare_digest
from typing import Any

from runtime.edges.addresses import answer_each, family_of, receive, unreached
from runtime.probes.reachability_matrix import Reach

CONNECT_SECONDS = 3.0
SSH_PORT = 22
_ECHOED_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where another node listens."""

    host: str
    address: str
    port: int


class Listener:
    """Sends back what follows the run's token, on a port that the kernel picks, until closed."""

    def __init__(self, address: str, *, token: str) -> None:
        self._token = token.encode()
        self._server = socket.socket(family_of(address), socket.SOCK_STREAM)
        self._server.bind((address, 0))
        self._server.listen(128)
        self.port: int = self._server.getsockname()[1]
        answer = partial(_echo, token=self._token)
        self._thread = threading.Thread(target=answer_each, args=(self._server, answer), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the listening; shutdown wakes the thread that waits in accept."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(1.0)


def _echo(connection: socket.socket, token: bytes) -> None:
    with connection:
        connection.settimeout(CONNECT_SECONDS)
        try:
            if compare_digest(receive(connection, len(token)), token):
                connection.sendall(receive(connection, _ECHOED_BYTES))
        except OSError:
            return


def connect_all(
    source: str, own_address: str, peers: Sequence[Peer], timeout_seconds: float, *, token: str
) -> list[Reach]:
    """This node to every other, all at once, each within the time-out."""
    if not peers:
        return []
    with ThreadPoolExecutor(max_workers=min(64, len(peers))) as pool:
        return list(
            pool.map(lambda peer: _connect(source, own_address, peer, timeout_seconds, token=token), peers)
        )


def knock_all(source: str, targets: Sequence[str], timeout_seconds: float) -> list[Reach]:
    """Whether this node gets a connection to the ssh port of others, all at once, each in that time."""
    with ThreadPoolExecutor(max_workers=max(1, min(64, len(targets)))) as pool:
        return list(pool.map(lambda target: _knock(source, target, timeout_seconds), targets))


def _knock(source: str, target: str, timeout_seconds: float) -> Reach:
    started = time.monotonic()
    error = unreached(target, SSH_PORT, timeout_seconds)
    return Reach(source=source, target=target, error=error, seconds=time.monotonic() - started)


def _connect(source: str, own_address: str, peer: Peer, timeout_seconds: float, *, token: str) -> Reach:
    echoed, started = os.urandom(_ECHOED_BYTES), time.monotonic()
    error = ""
    try:
        with socket.create_connection(
            (peer.address, peer.port), timeout=timeout_seconds, source_address=(own_address, 0)
        ) as connection:
            connection.sendall(token.encode() + echoed)
            if receive(connection, _ECHOED_BYTES) != echoed:
                error = "other bytes came back than were sent"
    except TimeoutError:
        error = f"no answer within {timeout_seconds:g} s"
    except (OSError, ValueError, OverflowError) as e:  # what another node calls its address may be none
        error = getattr(e, "strerror", None) or str(e)
    return Reach(source=source, target=peer.host, error=error, seconds=time.monotonic() - started)


def peer_from_json(values: Mapping[str, Any]) -> Peer:
    """A peer back from plain values."""
    return Peer(host=values["host"], address=values["address"], port=values["port"])


def to_json(value: Peer | Reach) -> dict[str, Any]:
    """The dataclass as plain values."""
    return asdict(value)
