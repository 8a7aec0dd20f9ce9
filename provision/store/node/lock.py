"""One program at a time on a tree that arrives: a later one ends the one before, whose controller is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import time
from typing import Iterator

from provision.store.node.store import StoreError

_FLOCK = "hhqqi4x"  # struct flock of a 64-bit Linux: type, whence, start, length, process
_WAIT_SECONDS = 10.0


@contextlib.contextmanager
def held_alone(path: str) -> Iterator[None]:
    """Holds a file's record lock, which ends with this process (fcntl(2), F_SETLK).

    Raises:
        StoreError: the earlier program does not end.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _WAIT_SECONDS
    try:
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as e:
                if time.monotonic() > deadline:
                    raise StoreError(
                        "another delivery of the same tree is at work here, and does not end"
                    ) from e
            _end_holder(descriptor)
            time.sleep(0.1)
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    finally:
        os.close(descriptor)


def _end_holder(descriptor: int) -> None:
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    if kind != fcntl.F_UNLCK and pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
