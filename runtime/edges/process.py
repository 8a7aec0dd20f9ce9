"""The launcher's only door to other programs: a list of words, pipes or a log file, and their certain end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from runtime.untrusted.files import read_plain

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NUMBER_BYTES = 20  # of a process, as text
_LIBC = ctypes.CDLL(None, use_errno=True)


class Channel:
    """A program that we talk to in lines over its standard streams, in a session of its own.

    Its own session keeps a Ctrl-C of the terminal from ending it before it has passed the end on.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        on_line: Callable[[bytes], None],
        on_error_line: Callable[[bytes], None],
        on_end: Callable[[int], None],
        most_bytes: int = 1 << 16,
    ) -> None:
        """Starts the program; one that is not there ends at once with 127, as it would in a shell.

        Lines come with their ends, and those of more than `most_bytes` in pieces of so many.
        """
        self._threads: tuple[threading.Thread, ...] = ()
        self._child = _start(argv, on_error_line)
        if self._child is None:
            on_end(127)
            return
        assert self._child.stdout
        assert self._child.stderr
        read_error = partial(_read, self._child.stderr, on_error_line, most_bytes)
        errors = threading.Thread(target=read_error, daemon=True)
        read_line = partial(_read, self._child.stdout, on_line, most_bytes)
        lines = threading.Thread(target=_follow, args=(self._child, errors, read_line, on_end), daemon=True)
        errors.start()
        lines.start()
        self._threads = (errors, lines)

    def send(self, data: bytes) -> None:
        """Writes and flushes; silent when the other side is gone, which `on_end` tells."""
        if self._child and self._child.stdin:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self._child.stdin.write(data)
                self._child.stdin.flush()

    def hang_up(self) -> None:
        """Closes its standard input: the agreed sign to end everything and leave."""
        if self._child and self._child.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()

    def kill(self) -> None:
        """Ends it now, for one that is not to be trusted to leave."""
        if self._child:
            self._child.kill()

    def end(self, timeout_seconds: float) -> None:
        """Waits for its end after `hang_up`, then kills it; both streams are read to their ends."""
        if self._child:
            try:
                self._child.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        for thread in self._threads:
            thread.join(1.0)


def _start(argv: Sequence[str], on_error_line: Callable[[bytes], None]) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as e:
        on_error_line(f"{argv[0]}: {e.strerror}\n".encode())
        return None


def _follow(
    child: subprocess.Popen[bytes],
    errors: threading.Thread,
    read_lines: Callable[[], None],
    on_end: Callable[[int], None],
) -> None:
    read_lines()
    status = child.wait()
    errors.join(1.0)
    on_end(status)


def _read(stream: IO[bytes], on_line: Callable[[bytes], None], most_bytes: int) -> None:
    with stream:
        while line := stream.readline(most_bytes):
            on_line(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A program's exit status and what it wrote."""

    status: int
    out: str
    errors: str


def complete(argv: Sequence[str], *, given: bytes = b"", timeout_seconds: float = 10.0) -> Ended:
    """Runs a short program to its end, `given` on its standard input.

    The status is 127 where there is no such program, and 124 where it took too long, as of timeout(1).
    """
    try:
        done = subprocess.run(
            list(argv), input=given, capture_output=True, check=False, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        return Ended(status=124, out="", errors=f"{argv[0]} gave no answer in {timeout_seconds:g} s")
    except OSError as e:
        return Ended(status=127, out="", errors=f"{argv[0]}: {e.strerror}")
    out, errors = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return Ended(status=done.returncode, out=out, errors=errors)


class Program:
    """A program in a session of its own, its output in an open file; it dies when this process does.

    Of our open descriptors it gets those that are `handed_on`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        output: int,
        handed_on: Sequence[int] = (),
    ) -> None:
        self._child = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=handed_on,
            preexec_fn=die_with_parent,
        )
        self.pid = self._child.pid

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._child.poll()

    def terminate(self) -> None:
        """SIGTERM, which `runtime.launch.rank` hands on to its rank."""
        if self._child.poll() is None:
            self._child.terminate()


def die_with_parent() -> None:
    """SIGKILL for this process when its parent ends (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants that lose theirs, so that `descendants` finds them all."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """A line of /proc/<pid>/stat (proc(5)); `born` tells it from a later process of the same number."""

    pid: int
    state: str
    parent: int
    born: str


def _process(pid: int) -> _Process | None:
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _Process(pid=pid, state=values[0], parent=int(values[1]), born=values[19])


def _below(ancestor: int) -> tuple[_Process, ...]:
    children: dict[int, list[_Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (process := _process(int(entry.name))):
            children.setdefault(process.parent, []).append(process)
    found: list[_Process] = []
    todo = list(children.get(ancestor, ()))
    while todo:
        process = todo.pop()
        found.append(process)
        todo.extend(children.get(process.pid, ()))
    return tuple(process for process in found if process.state not in "ZX")


def descendants(ancestor: int) -> tuple[int, ...]:
    """Processes below `ancestor` that still run, from /proc; those that have ended (zombies) are left out."""
    return tuple(process.pid for process in _below(ancestor))


def process_state(noted: Path) -> str:
    """The kernel's letter for the process whose number stands in a file: T is stopped; empty for none."""
    try:
        pid = int(read_plain(noted, _NUMBER_BYTES))
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):  # it has none yet, or has ended; or what is there is not ours
        return ""
    return stat.rpartition(")")[2].split()[0]


def kill_descendants(ancestor: int, *, spared: Collection[int] = ()) -> int:
    """One round of SIGKILL over everything below `ancestor` but those; how many it was sent to."""
    return sum(_kill(process) for process in _below(ancestor) if process.pid not in spared)


def _kill(process: _Process) -> bool:
    """Kills this process and no later one of its number, which the descriptor holds on to (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        seen = _process(process.pid)
        if seen is None or seen.born != process.born:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True
