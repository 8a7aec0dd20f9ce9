"""One rank on a node: runs the user's program, keeps its output in one file, records how and when it ended.

`python -m runtime.launch.rank LOCAL_RANK`, started by its node (`launch/node_process.py`), which hands on the
order in its environment: a file could be replaced by whoever owns the job's folder. It imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from runtime.edges import private_files
from runtime.edges.process import die_with_parent
from runtime.job.argv import program_argv
from runtime.job.spec import take_variables

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TAKEN = (*_FORWARDED, signal.SIGCHLD)


def main(arguments: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Runs the program to its end; its status, or 128 + the signal that ended it."""
    order = take_variables(environ)
    local_rank = int(arguments[0])
    _redirect(order.rank_log(local_rank))
    status = _run(program_argv(order, local_rank, python=sys.executable), Path(order.rank_pid(local_rank)))
    with contextlib.suppress(OSError):  # where it cannot be, the program's own words stay the last
        _record(Path(order.rank_exit(local_rank)), status)
    return status if status >= 0 else 128 - status


def _redirect(log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _run(argv: Sequence[str], noted: Path) -> int:
    """The program's status, negative for a signal. Signals stay blocked to the end of this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored the kernel keeps no status
    signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
    child = os.fork()
    if child == 0:
        _become(argv)
    with contextlib.suppress(OSError):  # on a full disk a rank runs, too
        private_files.write(noted, str(child))
    return _hand_on_signals(child)


def _hand_on_signals(child: int) -> int:
    """Signals and the child's end are taken in turn, so that no signal goes to a process that was reaped."""
    while True:
        received = signal.sigwait(_TAKEN)
        if received != signal.SIGCHLD:
            with contextlib.suppress(PermissionError):  # it runs as somebody else by now
                os.kill(child, received)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def _become(argv: Sequence[str]) -> None:
    """In the child: the program itself. Signals are as a program expects to find them."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN)
    try:
        os.execvp(argv[0], list(argv))
    except OSError as e:
        os.write(2, f"cannot run {argv[0]}: {e.strerror}\n".encode())
        os._exit(127)


def _record(path: Path, status: int) -> None:
    private_files.write(path, json.dumps({"status": status, "time": time.time()}))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
