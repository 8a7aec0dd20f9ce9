"""An end without an abort: gloo's threads let go of their last tensors before the interpreter goes away.

A collective is over for its caller before the thread that ran it drops the collective's tensors. A tensor
that Python has seen is dropped under the interpreter's lock, and a thread that asks for this lock once the
interpreter is going away is ended by pthread_exit. That unwinds through a C++ destructor, so that the process
aborts: "terminate called without an active exception". `destroy_process_group` does not wait for the threads
as long as anything, a device mesh for one, holds the group (https://github.com/pytorch/pytorch/pull/179291).
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Iterable
from pathlib import Path

THREAD = "pt_gloo_runloop"
_LIMIT_SECONDS, _PAUSE_SECONDS = 5.0, 0.002
_THREADS = Path("/proc/self/task")


def settle_at_exit() -> None:
    """Has this process settle before its interpreter goes away; asking again changes nothing."""
    atexit.unregister(settle)
    atexit.register(settle)


def settle(*, limit_seconds: float = _LIMIT_SECONDS) -> bool:
    """Waits, with the interpreter's lock free, until no gloo thread is at work; says whether it came true.

    A thread that waits for other ranks counts as not at work: it drops nothing.
    """
    deadline = time.monotonic() + limit_seconds
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
        quiet = 0 if is_at_work(_stats()) else quiet + 1
    return quiet == 2


def is_at_work(stats: Iterable[str]) -> bool:
    """Whether a gloo thread is anything but asleep, from lines of /proc/<pid>/task/<tid>/stat (proc(5))."""
    for stat in stats:
        name, _, rest = stat.partition("(")[2].rpartition(")")
        if name == THREAD and rest.split()[0] != "S":
            return True
    return False


def _stats() -> list[str]:
    found = []
    for thread in _THREADS.iterdir():
        try:
            found.append((thread / "stat").read_text())
        except OSError:  # it ended meanwhile
            continue
    return found
