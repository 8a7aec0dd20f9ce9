"""The only door to other programs on this machine: a list of words, a time-out, an explicit environment."""

from __future__ import annotations

import ctypes
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provision.errors import CommandFailed, MissingRequirement

_PR_SET_PDEATHSIG = 1
_MOST_SAID = 1 << 16
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A program that ended: its words, exit status, output and wall time in seconds."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float


def _die_with_parent() -> None:
    """Runs in the child: SIGKILL it when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _failure(words: tuple[str, ...], *, found: str, tail: str) -> CommandFailed:
    last_lines = "\n".join(tail.strip().splitlines()[-20:])
    return CommandFailed(
        f"run {shlex.join(words)}",
        found=f"{found}\n{last_lines}" if last_lines else found,
        fix="The last lines of its output are above.",
    )


def run(
    argv: Sequence[str | Path],
    *,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Finished:
    """Runs a program to its end and returns what it printed.

    Args:
        argv: the program and its arguments; no shell is involved.
        timeout_seconds: wall time after which the program is killed.
        env: its whole environment; None hands on this process's own.
        stdin: text for its standard input; None gives it an empty one.
        check: raise when it ends with a non-zero status.

    Raises:
        MissingRequirement: there is no such program.
        CommandFailed: it ran out of time, or `check` and its status was not zero.
    """
    words = tuple(str(word) for word in argv)
    started = time.monotonic()
    try:
        finished = subprocess.run(
            words,
            env=None if env is None else dict(env),
            input=stdin if stdin is not None else "",
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            preexec_fn=_die_with_parent,
        )
    except FileNotFoundError as e:
        raise MissingRequirement(
            f"run {words[0]}", found="no such program on this machine", fix=f"Install {words[0]}."
        ) from e
    except subprocess.TimeoutExpired as e:
        tail = e.stderr or e.stdout or b""
        raise _failure(
            words,
            found=f"it was still running after {timeout_seconds:.0f} s",
            tail=tail if isinstance(tail, str) else tail.decode(errors="replace"),
        ) from e
    if check and finished.returncode != 0:
        raise _failure(
            words,
            found=f"it ended with status {finished.returncode}",
            tail=finished.stderr or finished.stdout,
        )
    return Finished(
        argv=words,
        returncode=finished.returncode,
        stdout=finished.stdout,
        stderr=finished.stderr,
        seconds=time.monotonic() - started,
    )


def stream(
    argv: Sequence[str | Path],
    *,
    timeout_seconds: float,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Runs a program, hands on each line of its output (both streams) as it comes, returns its status.

    Raises:
        CommandFailed: it was still running after `timeout_seconds`.
    """
    words = tuple(str(word) for word in argv)
    deadline = time.monotonic() + timeout_seconds
    with subprocess.Popen(
        words,
        env=None if env is None else dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=_die_with_parent,
    ) as child:
        assert child.stdout is not None
        timer = _kill_at(child, deadline)
        try:
            for line in child.stdout:
                on_line(line.rstrip("\n"))
            returncode = child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
    if time.monotonic() >= deadline and returncode == -signal.SIGKILL:
        raise _failure(words, found=f"it was still running after {timeout_seconds:.0f} s", tail="")
    return returncode


def _kill_at(child: subprocess.Popen[str], deadline: float) -> threading.Timer:
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), child.kill)
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def connected_by(argv: Sequence[str]) -> Iterator[tuple[socket.socket, Callable[[], str]]]:
    """A socket whose other end is a program's input and output, and what it has said on its standard error.

    The program is killed at the end.

    Raises:
        MissingRequirement: there is no such program.
    """
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as errors:

        def said() -> str:
            errors.seek(0)
            return " ".join(errors.read(_MOST_SAID).decode(errors="replace").split())

        with theirs:
            try:
                child = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=errors,
                    preexec_fn=_die_with_parent,
                )
            except FileNotFoundError as e:
                raise MissingRequirement(
                    f"run {argv[0]}", found="no such program on this machine", fix=f"Install {argv[0]}."
                ) from e
        try:
            yield ours, said
        finally:
            child.kill()
            child.wait()


def start_detached(
    argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Starts a program that outlives this process, in a session of its own; returns its process id.

    Its output goes to the end of `log`. Whoever calls this records the id and ends the program later.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in argv],
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).pid
