"""One node's part in a delivery: it fetches from those before it in the chain, and serves those behind it.

Root runs it on each node, and it ends with its standard input. The others come as `user`, who reaches all
nodes by ssh and has no other rights, through a socket in the store that is that user's alone. Who asks
another node runs ssh as that user; it carries what both ends sign.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import queue
import select
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Iterator, NamedTuple

from provision.store.node.arrival import RESERVE_BYTES, Arrival, BadChunk
from provision.store.node.exchange import Counters, ask, serve
from provision.store.node.links import ASKS, Link, LinkError
from provision.store.node.lock import held_alone
from provision.store.node.store import Store, StoreError

STATUS_SECONDS = 0.25
HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 6.0  # of another node, which says each second that it is alive
ORPHAN_SECONDS = 60.0  # without a word of the controller
_STUCK_SECONDS = 3.0
_MOST_CALLS = 32
_MOST_FAULTS = 2  # of one other node, before it is asked no more
F_SETPIPE_SZ = 1031  # fcntl(2); the module names it from Python 3.10 on
_PEER = struct.Struct("3i")
SSH = (
    *("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5"),
    *("-o", "Compression=no", "-o", "Ciphers=^aes128-gcm@openssh.com", "-o", "ServerAliveInterval=5"),
    *("-o", "LogLevel=ERROR"),
)
# What runs on the other node: its input into the socket there, and back what comes from it.
BRIDGE = """
import os, socket, sys, threading
os.chdir(sys.argv[1])
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[2])
def there():
    try:
        while True:
            data = os.read(0, 1 << 20)
            if not data:
                break
            line.sendall(data)
    finally:
        line.shutdown(socket.SHUT_RDWR)
threading.Thread(target=there, daemon=True).start()
while True:
    data = line.recv(1 << 20)
    if not data:
        break
    while data:
        data = data[os.write(1, data):]
"""


def socket_name(digest: str) -> str:
    return f"{digest[:16]}.socket"


def bridge(store: str, digest: str) -> list[str]:
    """The words by which a node's socket is reached there."""
    return ["python3", "-c", BRIDGE, store, socket_name(digest)]


class _Pushed(NamedTuple):
    """A connection at whose other end is the source; `is_used` once nothing more is asked of it."""

    link: Link
    is_used: threading.Event


class Holder:
    """A delivery on this node, until the tree is whole everywhere or the controller says `stop`."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.store = Store(plan["store"])
        self.digest, self.key = plan["digest"], bytes.fromhex(plan["key"])
        self.arrival = Arrival(
            self.store, plan["name"], self.digest, reserve_bytes=plan.get("reserve_bytes", RESERVE_BYTES)
        )
        self.counters = Counters(plan.get("bytes_per_second", 0.0))
        self.lanes, self.user = plan["lanes"], plan["user"]
        _refuse_no_user(self.user)
        self.ssh = ssh_of(self.user)
        self.others: list[list[str]] | None = None  # to be asked for each lane, the nearest first
        self.error = ""
        self.notes: list[str] = []
        self.ended = threading.Event()
        self._stuck: dict[int, float] = {}
        self._pushed: list[queue.Queue[_Pushed]] = [queue.Queue(4) for _ in range(self.lanes)]
        self._faults: dict[str, int] = {}
        self._children: set[subprocess.Popen[bytes]] = set()
        self._last_word = time.monotonic()

    def run(self) -> None:
        """Until the controller ends it."""
        with held_alone(os.path.join(self.store.path, "partial", f"{self.digest}.lock")), self._listening():
            self.arrival.begin()
            for work in (self._prove, self._listen_to_controller, *self._lane_works()):
                threading.Thread(target=work, daemon=True).start()
            said, at = "", 0.0
            while True:
                now = json.dumps(self.status())
                if now != said or time.monotonic() - at > HEARTBEAT_SECONDS:
                    say(now)
                    said, at = now, time.monotonic()
                if self.ended.wait(STATUS_SECONDS):
                    break
                if time.monotonic() - self._last_word > ORPHAN_SECONDS:
                    break
            self.ended.set()
            say(json.dumps(self.status()))
            for child in list(self._children):
                child.kill()

    def status(self) -> dict[str, Any]:
        arrival = self.arrival
        now = time.monotonic()
        return {
            "state": "failed" if self.error else "whole" if arrival.is_whole else "arriving",
            "error": self.error,
            "chunks": sum(arrival.have),
            "bytes": arrival.bytes,
            "of": arrival.manifest.bytes if arrival.manifest else 0,
            "adopted": arrival.adopted_bytes,
            "got": self.counters.got,
            "sent": self.counters.sent,
            "stuck": [lane for lane, since in self._stuck.items() if now - since > _STUCK_SECONDS],
            "notes": self.notes[-20:],
        }

    def _prove(self) -> None:
        with self._failing():
            self.arrival.prove(self.ended.is_set)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What this node's own disk refuses ends its part; others may still take from it what it has."""
        try:
            yield
        except Exception as e:
            self.error = self.error or (str(e) if isinstance(e, OSError) else repr(e))

    def _listen_to_controller(self) -> None:
        for line in sys.stdin:
            self._last_word = time.monotonic()
            order = json.loads(line)
            if order.get("stop"):
                break
            self.others = order.get("from", self.others)
        self.ended.set()

    def _has_ended(self) -> bool:
        return self.ended.is_set() or bool(self.error)

    def _lane_works(self) -> list[Callable[[], None]]:
        return [lambda lane=lane: self._fetch(lane) for lane in range(self.lanes)]  # type: ignore[misc]

    def _fetch(self, lane: int) -> None:
        """Asks one after the other until the lane has all, and again where a file had to go."""
        with self._failing():
            while not self._has_ended() and not self.arrival.is_whole:
                if self.others is None or (lane and self.arrival.manifest is None):
                    time.sleep(0.05)
                elif self._has_all(lane):
                    self._stuck.pop(lane, None)
                    time.sleep(0.1)
                else:
                    self._round(lane)

    def _has_all(self, lane: int) -> bool:
        return self.arrival.manifest is not None and not self.arrival.wanted(lane, self.lanes)

    def _round(self, lane: int) -> None:
        with contextlib.suppress(queue.Empty):
            self._take_pushed(lane, 0.0)
            return
        for node in list((self.others or [])[lane]):
            if self._faults.get(node, 0) < _MOST_FAULTS and self._call(node, lane):
                return
        self._stuck.setdefault(lane, time.monotonic())
        with contextlib.suppress(queue.Empty):
            self._take_pushed(lane, 0.5)

    def _take_pushed(self, lane: int, seconds: float) -> None:
        """From the controller, where it has called."""
        pushed = self._pushed[lane].get(block=seconds > 0, timeout=seconds or None)
        try:
            self._ask(pushed.link, lane, "the controller")
        finally:
            pushed.is_used.set()

    def _call(self, node: str, lane: int) -> bool:
        """Whether it gave something."""
        words = [*self.ssh, node, shlex.join(bridge(self.store.path, self.digest))]
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._children.add(child)
        there, back = child.stdin, child.stdout
        assert there is not None
        assert back is not None
        for pipe in (there, back):  # a MiB, not 64 KiB: the programs take turns less often
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, F_SETPIPE_SZ, 1 << 20)
        try:
            link = Link(reader(back.fileno()), lambda data: write_all(there.fileno(), data))
            before = self.counters.got
            with contextlib.suppress(LinkError, BrokenPipeError):
                link.call(self.key, self.digest, role=ASKS)
                self._ask(link, lane, node)
            return self.counters.got > before or self._has_all(lane)
        finally:
            self._children.discard(child)
            child.kill()
            child.communicate()

    def _ask(self, link: Link, lane: int, node: str) -> None:
        before = self.counters.got
        link.on_bytes = lambda: self._stuck.pop(lane, None)  # somebody of this lane is alive
        try:
            ask(link, self.arrival, lane, self.lanes, self.counters, self._has_ended)
        except BadChunk as e:
            self._faults[node] = self._faults.get(node, 0) + 1
            self.notes.append(f"{node}: {e}")
        except StoreError:
            raise
        except (LinkError, BrokenPipeError, ConnectionError, TimeoutError) as e:
            if self.counters.got > before:
                self.notes.append(f"{node}: {e}")

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """The socket in the store, of that user alone."""
        name, here = socket_name(self.digest), os.getcwd()
        listener = socket.socket(socket.AF_UNIX)
        os.chdir(self.store.path)  # whole paths can be too long, unix(7)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            old = os.umask(0o177)
            listener.bind(name)
            os.umask(old)
            owner = pwd.getpwnam(self.user).pw_uid
            os.chown(name, owner, -1)
            listener.listen(_MOST_CALLS)
        finally:
            os.chdir(here)
        threading.Thread(target=self._accept, args=(listener, {os.geteuid(), owner}), daemon=True).start()
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.store.path, name))

    def _accept(self, listener: socket.socket, users: set[int]) -> None:
        room = threading.Semaphore(_MOST_CALLS)
        while not self.ended.is_set():
            line, _ = listener.accept()
            _, peer, _ = _PEER.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if peer not in users or not room.acquire(blocking=False):
                line.close()
                continue
            threading.Thread(target=self._answer, args=(line, room), daemon=True).start()

    def _answer(self, line: socket.socket, room: threading.Semaphore) -> None:
        """One who called: it asks, or has (the controller) and is asked in its lane's turn."""
        try:
            line.settimeout(SILENCE_SECONDS)
            link = Link(line.recv, line.sendall)
            hello = link.answer(self.key, self.digest)
            line.settimeout(ORPHAN_SECONDS)
            if hello.role == ASKS:
                serve(link, self.arrival, self.counters, self.ended.is_set)
            elif hello.lane < self.lanes:
                line.settimeout(SILENCE_SECONDS)
                pushed = _Pushed(link, threading.Event())
                self._pushed[hello.lane].put_nowait(pushed)
                while not (pushed.is_used.wait(STATUS_SECONDS) or self.ended.is_set()):
                    pass
        except StoreError as e:  # of what lies here; while it arrives it is fetched again
            if self.arrival.is_whole:
                self.error = self.error or f"its tree is damaged: {e}"
        except (OSError, queue.Full, ValueError):
            pass  # who called has hung up, or is none of ours
        finally:
            line.close()
            room.release()


def _refuse_no_user(user: str) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError as e:
        raise StoreError(
            f"there is no user {user} here, by whom nodes reach each other: run site.yml first"
        ) from e


def ssh_of(user: str) -> list[str]:
    """The words by which that user's ssh is called."""
    return list(SSH if pwd.getpwnam(user).pw_uid == os.geteuid() else ("runuser", "-u", user, "--", *SSH))


def reader(descriptor: int, seconds: float = SILENCE_SECONDS) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        if not select.select([descriptor], [], [], seconds)[0]:
            raise LinkError(f"it was silent for {seconds:.0f} s")
        return os.read(descriptor, size)

    return read


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def hold() -> None:
    """The first line of standard input is the plan, with the key: it is in no list of processes."""
    plan = json.loads(sys.stdin.readline())
    with contextlib.suppress(BrokenPipeError):  # the controller is gone, and hears nothing more
        try:
            Holder(plan).run()
        except BrokenPipeError:
            raise
        except OSError as e:
            say(json.dumps({"state": "failed", "error": str(e)}))
    os._exit(0)  # threads wait in reads that have no end
