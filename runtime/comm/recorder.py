"""What a rank remembers of its collectives, kept when it ends badly: PyTorch's flight recorder, for Gloo too.

NCCL's watchdog writes such a dump by itself after a time-out. Over Gloo nobody does: a rank ends by an
exception, or sits in a collective, deaf to Python's signal handlers, until it is killed. So the dump is
written when an exception ends the process, and by a thread when SIGTERM asks it to end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType

_WAKEUPS = 64


def keep_flight(path: Path) -> None:
    """From now on, what this process remembers is written there before it ends badly.

    A handler of SIGTERM that the program has installed, before or later, stays in force; the dump is written
    all the same where the program has not claimed Python's wake-up descriptor for itself.
    """
    recorder = _Recorder(path)
    previous = sys.excepthook

    def on_exception(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        recorder.write()
        previous(kind, value, trace)

    sys.excepthook = on_exception
    if threading.current_thread() is threading.main_thread():
        recorder.listen()


class _Recorder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self) -> None:
        """Writes the dump whole or not at all; a process that ends badly has nobody to tell why not."""
        import torch

        dump = getattr(torch._C._distributed_c10d, "_dump_fr_trace", None)  # torch 2.7 and later
        if dump is None:
            return
        partial = self._path.with_name(f"{self._path.name}.partial")
        with contextlib.suppress(OSError, RuntimeError):
            partial.write_bytes(dump())
            partial.replace(self._path)

    def listen(self) -> None:
        """Has the C side of Python's signal handling wake a thread, since the main one may wait in C++."""
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_signal)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        taken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if taken != -1:
            signal.set_wakeup_fd(taken)
            return
        # A child that is forked shares the pipe, and its end must not be taken for ours.
        os.register_at_fork(after_in_child=self._forget)
        threading.Thread(target=self._wait, args=(reader,), daemon=True).start()

    def _forget(self) -> None:
        signal.set_wakeup_fd(-1)
        if signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _wait(self, reader: int) -> None:
        while True:
            if signal.SIGTERM in os.read(reader, _WAKEUPS):
                self.write()
                if signal.getsignal(signal.SIGTERM) == self._on_signal:
                    _end()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.write()
        _end()


def _end() -> None:
    """Ends this process as SIGTERM does by default; only the C library may say so outside the main thread."""
    ctypes.CDLL(None).signal(signal.SIGTERM, 0)
    os.kill(os.getpid(), signal.SIGTERM)
