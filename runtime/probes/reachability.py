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
from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from typing import Any

from runtime.edges.addresses import answer_each, family_of, receive, unreached

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


def reach_ssh_of(source: str, targets: Sequence[str], timeout_seconds: float) -> list[Reach]:
    """Whether this node gets a connection to the ssh port of others, all at once, each in that time."""
    with ThreadPoolExecutor(max_workers=max(1, min(64, len(targets)))) as pool:
        return list(pool.map(lambda target: _reach_ssh(source, target, timeout_seconds), targets))


def _reach_ssh(source: str, target: str, timeout_seconds: float) -> Reach:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One ordered pair: the time of connecting and of one round trip in seconds, or the error."""

    source: str
    target: str
    error: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the bytes came back as they went."""
        return not self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A node, or an ordered pair where `target` is set, that explains failures; `found` in words."""

    host: str
    target: str
    found: str


def blame(hosts: Sequence[str], reached: Sequence[Reach]) -> tuple[Blame, ...]:
    """From the matrix of ordered pairs to nodes and, for what they do not explain, pairs.

    A node is blamed when most of its remaining partners fail with it (peeling: the worst node first); with
    two nodes no side can be named, so the pair is.
    """
    failed = [reach for reach in reached if not reach.ok]
    blamed: list[Blame] = []
    remaining = set(hosts)
    while failed:
        partners = {host: _partners(host, failed) for host in remaining}
        worst = max(sorted(remaining), key=lambda host: len(partners[host]))
        if len(remaining) < 3 or len(partners[worst]) <= (len(remaining) - 1) / 2:
            break
        blamed.append(Blame(host=worst, target="", found=_node_words(worst, partners[worst], failed)))
        failed = [reach for reach in failed if worst not in (reach.source, reach.target)]
        remaining.discard(worst)
    blamed += [
        Blame(host=reach.source, target=reach.target, found=f"cannot reach {reach.target}: {reach.error}")
        for reach in failed
    ]
    return tuple(blamed)


def between(launcher: str, silent: str, ssh_reached: Sequence[Reach]) -> tuple[str, ...]:
    """The nodes that reach a node which the launching one does not: then it is the way between these two."""
    own = [one for one in ssh_reached if (one.source, one.target) == (launcher, silent)]
    if not own or own[0].ok:
        return ()
    return tuple(one.source for one in ssh_reached if one.target == silent and one.ok)


def _partners(host: str, failed: Sequence[Reach]) -> set[str]:
    return {r.target for r in failed if r.source == host} | {r.source for r in failed if r.target == host}


def _node_words(host: str, partners: set[str], failed: Sequence[Reach]) -> str:
    inbound = sorted({r.source for r in failed if r.target == host})
    outbound = sorted({r.target for r in failed if r.source == host})
    errors = sorted({r.error for r in failed if host in (r.source, r.target)})
    parts = []
    if inbound:
        parts.append(f"{', '.join(inbound)} cannot reach its ports")
    if outbound:
        parts.append(f"it cannot reach those of {', '.join(outbound)}")
    return f"{' and '.join(parts)} ({'; '.join(errors)})"
