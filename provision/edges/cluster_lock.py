"""One controller at a time on a cluster: a lock beside its secrets that says who holds it.

A record lock (fcntl(2), F_SETLK) belongs to a process: children do not inherit it, and the kernel drops it
when the process ends, however it ends. On NFS it holds between machines.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from provision.errors import BadInput, Busy

# Locks of this process, by file: to ask the kernel for one would drop it, since any close of its file does.
_OWN: dict[Path, Holder] = {}
_FLOCK = "hhqqi4x"  # struct flock of a 64-bit Linux: type, whence, start, length, process


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who works on a cluster: machine, process, since when (ISO 8601) and with which command."""

    host: str
    pid: int
    since: str
    what: str

    def __str__(self) -> str:
        return f"{self.what} holds it: process {self.pid} on {self.host}, since {self.since}"


def path_in(secrets: Path) -> Path:
    """The lock's file in the folder of a cluster's secrets."""
    return secrets / "controller.lock"


@contextmanager
def hold(secrets: Path, what: str) -> Iterator[None]:
    """Holds a cluster while the block runs; playbooks that the block starts count as its own.

    Raises:
        Busy: another controller works on it.
    """
    descriptor = take(secrets, what)
    try:
        yield
    finally:
        del _OWN[path_in(secrets).resolve()]
        os.close(descriptor)


def take(secrets: Path, what: str) -> int:
    """Holds a cluster until this process ends.

    Raises:
        Busy: another controller works on it.
        BadInput: the lock's file cannot be written.
    """
    path = path_in(secrets)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise _unusable(path, e) from e
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(descriptor)
        raise busy(secrets, holder(secrets)) from e
    since = datetime.now(UTC).isoformat(timespec="seconds")
    own = Holder(host=socket.gethostname(), pid=os.getpid(), since=since, what=what)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(asdict(own)) + "\n").encode(), 0)
    _OWN[path.resolve()] = own
    return descriptor


def _unusable(path: Path, error: OSError) -> BadInput:
    return BadInput(
        f"use the cluster's lock {path}",
        found=error.strerror or str(error),
        fix="Run as the user who owns that folder, or correct ssh_trust_secrets_path.",
    )


def holder(secrets: Path) -> Holder | None:
    """Who works on a cluster now.

    Raises:
        BadInput: the lock's file cannot be read.
    """
    path = path_in(secrets)
    if own := _OWN.get(path.resolve()):
        return own
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _unusable(path, e) from e
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        text = os.pread(descriptor, 4096, 0)
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else _holder(text, pid)


def _holder(text: bytes, pid: int) -> Holder:
    """The kernel knows the process; the text, which may be half written, the rest."""
    try:
        return Holder(**{**json.loads(text), "pid": pid})
    except (ValueError, TypeError):
        return Holder(host=socket.gethostname(), pid=pid, since="just now", what="a command")


def is_ours(found: Holder | None) -> bool:
    """Whether the holder is this process or one that started it."""
    return found is not None and found.host == socket.gethostname() and found.pid in _ancestors(os.getpid())


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        status = Path(f"/proc/{pid}/stat").read_text()
        pid = int(status.rpartition(")")[2].split()[1])


def busy(secrets: Path, found: Holder | None) -> Busy:
    """The error that names the holder."""
    return Busy(
        f"work on the cluster of {secrets}",
        found=str(found or "another controller holds it"),
        fix="Wait until it has ended, then run the command again.",
    )
