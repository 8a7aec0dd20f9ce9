"""A job's part on one node: its ranks, their output, their certain end; on the first node their store, too.

A rank has the variables and the store that torchrun's agent would give it. That agent imports torch on every
node before the first rank can; what else it does, to end the ranks together, is the launcher's part here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from runtime.edges import private_files
from runtime.edges.log_tail import Tail, last_lines
from runtime.edges.process import Program, descendants, kill_descendants, process_state
from runtime.errors import BadInput
from runtime.flight.dump import MOST_CALLS, read_dump
from runtime.job import spec
from runtime.job.argv import rank_argv, store_argv
from runtime.job.env_file import read_job_environment
from runtime.job.environment import place, rank_environment
from runtime.job.spec import Order
from runtime.launch.outcome import status_text
from runtime.probes.job import torch_version
from runtime.remote import frames
from runtime.untrusted.conform import members
from runtime.untrusted.documents import parse
from runtime.untrusted.files import read_plain

_LAST_LINES = 40
_RECORD_BYTES = 1 << 10


class NodeProcess:
    """Started on construction; `poll` is called every few hundredths of a second until `ended`.

    `meeting` is the socket on which the ranks meet, on the node of rank 0; it stays the caller's to close.
    """

    def __init__(
        self,
        order: Order,
        *,
        session: Mapping[str, str],
        python: str,
        interface: str,
        meeting: socket.socket | None,
    ) -> None:
        self._order = order
        _prepare(order)
        self._tails = {local: Tail(Path(order.rank_log(local))) for local in order.shown_local_ranks}
        self._unreported = set(range(order.nproc))
        self._failing: set[int] = set()
        self._statuses: dict[int, int] = {}
        self._kill_at: float | None = None
        self.ended = False
        environment = rank_environment(
            order,
            session=session,
            job=read_job_environment(Path(order.job_environment_path)),
            python=python,
            torch=torch_version(),
            interface=interface,
            cpus=len(os.sched_getaffinity(0)),
        )
        self._store: Program | None = None
        with os.fdopen(private_files.create(Path(order.node_log)), "wb") as log:
            start = partial(Program, cwd=order.cwd, output=log.fileno())
            if meeting:
                argv = store_argv(order, python=python, listener=meeting.fileno())
                self._store = start(argv, env=environment, handed_on=[meeting.fileno()])
            environment |= spec.to_variables(order)
            self._ranks = [
                start(rank_argv(local, python=python), env=environment | place(order, local))
                for local in range(order.nproc)
            ]

    def poll(self) -> list[bytes]:
        """Frames for what has happened since: output, ends of ranks, at last the end of all."""
        if self.ended:
            return []
        statuses = [rank.status() for rank in self._ranks]
        have_ended = None not in statuses
        self._kill_when_due(have_ended=have_ended)
        sent = [frame for local in self._tails for frame in self._lines(local)]
        sent += [*self._failures(), *self._ends()]
        if have_ended and not set(descendants(os.getpid())) - self._spared():
            sent += self._ends()
            sent += self._farewell(next((status for status in statuses if status), 0))
            self.ended = True
        return sent

    def stop(self, grace_seconds: float) -> None:
        """Asks the ranks to end, and kills after the grace whatever has not."""
        self._kill_at = min(self._kill_at or float("inf"), time.monotonic() + grace_seconds)
        if grace_seconds > 0:
            for rank in self._ranks:
                rank.terminate()

    def kill(self) -> None:
        """Kills everything below this process and returns when it is gone."""
        while kill_descendants(os.getpid()):
            time.sleep(0.01)

    def _lost(self) -> list[str]:
        status = self._store.status() if self._store else None
        return [] if status is None else [f"the store at which the ranks meet {status_text(status)}"]

    def _spared(self) -> set[int]:
        """The store stays for the ranks of other nodes, until the launcher is gone."""
        return {self._store.pid} if self._store else set()

    def _kill_when_due(self, *, have_ended: bool) -> None:
        """What outlives the ranks was left behind by them; without their store they are not let go on."""
        due = self._kill_at is not None and time.monotonic() >= self._kill_at
        if due or have_ended or (self._store and self._store.status() is not None):
            kill_descendants(os.getpid(), spared=self._spared())

    def _lines(self, local_rank: int) -> list[bytes]:
        pieces = self._tails[local_rank].read()
        return [_lines_frame(self._order.first_rank + local_rank, pieces)] if pieces else []

    def _failures(self) -> list[bytes]:
        """Ranks that have left a dump: they end badly, but tearing torch down takes them another second."""
        dumped = {local for local in self._unreported - self._failing if self._dump_of(local).exists()}
        self._failing |= dumped
        return [frames.encode("failing", rank=self._order.first_rank + local) for local in sorted(dumped)]

    def _dump_of(self, local_rank: int) -> Path:
        return Path(f"{self._order.flight}{self._order.first_rank + local_rank}")

    def _ends(self) -> list[bytes]:
        return [frame for local in sorted(self._unreported) for frame in self._end(local)]

    def _end(self, local_rank: int) -> list[bytes]:
        try:
            content = read_plain(Path(self._order.rank_exit(local_rank)), _RECORD_BYTES)
            recorded = members({"status": int, "time": float}, parse(content))
        except (OSError, ValueError):  # none yet; where it is none of ours, the end of the process counts
            return []
        self._unreported.discard(local_rank)
        self._statuses[local_rank] = recorded["status"]
        sent = self._last_output(local_rank)
        failed = recorded["status"] != 0
        sent.append(
            frames.encode(
                "exit",
                rank=self._order.first_rank + local_rank,
                status=recorded["status"],
                age=max(0.0, time.time() - recorded["time"]),
                tail=last_lines(Path(self._order.rank_log(local_rank)), _LAST_LINES) if failed else [],
                calls=self._calls(local_rank) if failed else [],
            )
        )
        return sent

    def _calls(self, local_rank: int) -> list[dict[str, Any]]:
        """What the rank remembers, where it left that."""
        try:
            return [asdict(call) for call in read_dump(self._dump_of(local_rank)).calls[-MOST_CALLS:]]
        except BadInput:
            return []

    def standing(self) -> list[dict[str, Any]]:
        """Each rank that has not ended, and the state of its process as the kernel names it (proc(5))."""
        return [
            {
                "rank": self._order.first_rank + local,
                "state": process_state(Path(self._order.rank_pid(local))),
            }
            for local in sorted(self._unreported)
        ]

    def _last_output(self, local_rank: int) -> list[bytes]:
        tail = self._tails.pop(local_rank, None)
        if tail is None:
            return []
        rank, sent = self._order.first_rank + local_rank, []
        while pieces := tail.read() or tail.finish():
            sent.append(_lines_frame(rank, pieces))
        tail.close()
        return sent

    def _farewell(self, status: int) -> list[bytes]:
        sent = [frame for local in list(self._tails) for frame in self._last_output(local)]
        succeeded = [self._statuses.get(local) == 0 for local in range(self._order.nproc)]
        tail = [] if all(succeeded) else [*last_lines(Path(self._order.node_log), _LAST_LINES), *self._lost()]
        if all(succeeded) and not self._order.keep_logs:
            _remove(self._order)
        return [*sent, frames.encode("ended", ok=all(succeeded), status=status, tail=tail)]


def _lines_frame(rank: int, pieces: list[str]) -> bytes:
    return frames.encode("lines", rank=rank, pieces=pieces)


def _prepare(order: Order) -> None:
    """Makes the job's folder, with an empty log for each rank."""
    private_files.make_job_folders(Path(order.job_path))
    for local in range(order.nproc):
        os.close(private_files.create(Path(order.rank_log(local))))
        Path(order.rank_exit(local)).unlink(missing_ok=True)
        Path(f"{order.flight}{order.first_rank + local}").unlink(missing_ok=True)


def _remove(order: Order) -> None:
    """What `_prepare` and the job made on this node; folders that others still use stay."""
    local_ranks = range(order.nproc)
    made = [order.node_log]
    for local in local_ranks:
        made += [order.rank_log(local), order.rank_exit(local), order.rank_pid(local)]
    for path in made:
        Path(path).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        Path(order.path("logs")).rmdir()
        Path(order.job_path).rmdir()
