"""What a rank remembers of its collectives, kept when it ends badly: PyTorch's flight recorder, for Gloo too.

NCCL's watchdog writes such a dump by itself after a time-out. Over Gloo nobody does: a rank ends by an
exception, or sits in a collective, deaf to Python's signal handlers, until it is killed. So the dump is
written when an exception ends the process, and by a thread when SIGTERM asks it to end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from traceback import walk_stack, walk_tb
from types import FrameType, TracebackType

from runtime.edges import private_files

_WAKEUPS = 64


def keep_flight(path: Path) -> None:
    """From now on, what this process remembers is written there before it ends badly.

    A handler of SIGTERM that the program has installed, before or later, stays in force; the dump is then
    written beside it, where the program lives long enough and does not claim Python's wake-up descriptor.
    """
    recorder = _Recorder(path)
    previous = sys.excepthook

    def on_exception(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        recorder.write([frame for frame, _ in walk_tb(trace)])
        previous(kind, value, trace)

    sys.excepthook = on_exception
    if threading.current_thread() is threading.main_thread():
        recorder.listen()


class _Recorder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.RLock()

    def write(self, stack: Sequence[FrameType] = ()) -> None:
        """Writes the dump whole or not at all; a process that ends badly has nobody to tell why not.

        Where the main thread is in Python, a signal reaches it and the thread that waits for signals at once.
        One of them writes, since whoever is done first ends the process with the other's file half written.

        The dump's own stack traces cost an import of torch._inductor, 2.5 s. Where the main thread is says as
        much of the last call: `stack`, outermost first, or else what that thread is in now.
        """
        import torch

        dump = getattr(torch._C._distributed_c10d, "_dump_fr_trace_json", None)  # torch 2.7 and later
        if dump is None:
            return
        frames = stack or _stack_of_main_thread()
        with self._writing, contextlib.suppress(OSError, RuntimeError, ValueError):
            values = json.loads(dump())
            values["now"] = [_plain(frame) for frame in reversed(frames)]
            private_files.write(self._path, json.dumps(values))

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
        # A child that is forked shares the pipe, and its end must not be taken for ours. A signal that comes
        # to it before it has forgotten our handler waits until then.
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=self._forget)
        threading.Thread(target=self._wait, args=(reader,), daemon=True).start()

    def _forget(self) -> None:
        self._writing = threading.RLock()
        signal.set_wakeup_fd(-1)
        if signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _let_go()

    def _wait(self, reader: int) -> None:
        while True:
            if signal.SIGTERM in os.read(reader, _WAKEUPS):
                self.write()
                if signal.getsignal(signal.SIGTERM) == self._on_signal:
                    _end()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.write()
        _end()


def _stack_of_main_thread() -> list[FrameType]:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return [frame for frame, _ in walk_stack(frame)][::-1]


def _plain(frame: FrameType) -> dict[str, str | int]:
    """As the flight recorder writes a frame."""
    code = frame.f_code
    return {"filename": code.co_filename, "line": frame.f_lineno, "name": code.co_name}


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _end() -> None:
    """Ends this process as SIGTERM does by default; only the C library may say so outside the main thread."""
    ctypes.CDLL(None).signal(signal.SIGTERM, 0)
    os.kill(os.getpid(), signal.SIGTERM)
