"""One command at a time on a lab: a lock that leaves no file and ends with the process that holds it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from provision.errors import Busy


@contextmanager
def hold(name: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds the lock called `name` while the block runs.

    The lock is a listening socket in the kernel's abstract namespace (unix(7)): whoever connects is told the
    holder's process id, and the kernel drops it when the holder ends, however it ends.

    Raises:
        Busy: another process still holds it after `wait_seconds`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mine:
        address = f"\0clusterwright/{name}"
        _bind(mine, address, name=name, deadline=time.monotonic() + wait_seconds)
        mine.listen()
        yield


def _bind(mine: socket.socket, address: str, *, name: str, deadline: float) -> None:
    while True:
        try:
            return mine.bind(address)
        except OSError as e:
            if time.monotonic() >= deadline:
                raise Busy(
                    f"work on {name}",
                    found=f"process {_holder(address) or '(just starting)'} is at it",
                    fix="Wait until it has ended, then run the command again.",
                ) from e
        time.sleep(0.1)


def _holder(address: str) -> int:
    """The process id behind a bound socket; 0 while it does not listen yet or no longer does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as question:
        question.settimeout(1.0)
        try:
            question.connect(address)
        except OSError:
            return 0
        size = struct.calcsize("3i")
        pid: int = struct.unpack("3i", question.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        return pid
