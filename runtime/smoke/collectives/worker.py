"""One rank of the smoke test: runs the operations, and always says where it is."""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from runtime.comm import transport
from runtime.comm.group import Group, process_group
from runtime.smoke.collectives import events
from runtime.smoke.collectives.budget import Budget
from runtime.smoke.collectives.operations import OnRound, Trial
from runtime.smoke.collectives.pattern import Pattern
from runtime.smoke.collectives.plan import SWEPT, TRAINING, Operation, operations
from runtime.topology import Topology

# Own limit of the backend, above the launcher's, which knows more and so speaks first.
_MARGIN_SECONDS = 10.0
# A size of the sweep that may take longer than this share of a step's time-out is not tried.
_STEP_SHARE = 0.5


class Voice:
    """Says on standard output, in whole lines, where this rank is; twice a second even when blocked."""

    def __init__(self) -> None:
        self._place: dict[str, Any] = {"operation": -1, "round": -1}
        self._silence = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def say(self, event: str, **values: Any) -> None:
        """One marked line, at once and unbroken."""
        os.write(1, events.encode(event, **values).encode())

    def at(self, operation: int, round_number: int) -> None:
        """Where the next beats report this rank."""
        self._place = {"operation": operation, "round": round_number}

    def _beat(self) -> None:
        while not self._silence.wait(events.BEAT_SECONDS):
            self.say("beat", **self._place)

    def close(self) -> None:
        """Ends the beats."""
        self._silence.set()
        self._thread.join()


def main(words: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """A rank as `python -m runtime smoke` starts it, with its place from `environ`. It ends the process."""
    parser = argparse.ArgumentParser(prog="python -m runtime smoke")
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--sweep-seconds", type=float, required=True)
    options = parser.parse_args(words)
    sizes = tuple(int(size) for size in options.sizes.split(","))
    topology, log = Topology.from_environment(environ), transport.keep_log(environ)
    try:
        work(
            topology,
            sizes=sizes,
            timeout_seconds=options.timeout,
            budget=Budget(limit_seconds=options.sweep_seconds, step_seconds=_STEP_SHARE * options.timeout),
            nccl_log=log,
        )
    finally:
        log.unlink()
    # All has been said and nothing is left to free: taking torch down object by object takes 0.7 s.
    os._exit(0)


def work(
    topology: Topology, *, sizes: Sequence[int], timeout_seconds: float, budget: Budget, nccl_log: Path
) -> None:
    """Runs all operations over the job's ranks: NCCL where there are GPUs, else Gloo."""
    voice = Voice()
    voice.say(events.STARTED, hostname=topology.hostname, pid=os.getpid())
    import torch

    from runtime.smoke.collectives.training import train

    # Comparing is cheap; threads of several ranks on one machine would only spin against each other.
    torch.set_num_threads(1)
    voice.say(events.IMPORTED, torch=torch.__version__)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    with process_group(topology, timeout_seconds=timeout_seconds + _MARGIN_SECONDS) as group:
        voice.say(events.JOINED, backend=backend)
        data = _Data(group)
        for operation in operations(topology.world_size, sizes):
            voice.say("begin", operation=operation.number)
            on_round = partial(voice.at, operation.number)
            done = train(group) if operation.step == TRAINING else _tried(data, operation, budget, on_round)
            voice.say("done", operation=operation.number, **done)
            if backend == "nccl" and operation.number == 0:
                voice.say(events.TRANSPORT, name=transport.chosen(nccl_log.read_text(errors="replace")))
    voice.close()


class _Data:
    """Test data for the largest operation so far: what the budget leaves out costs no memory."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._pattern: Pattern | None = None
        self._elements = 0

    def of(self, operation: Operation) -> Pattern:
        """Data that suffices for the operation."""
        elements = operation.size // 4
        if self._pattern is None or elements > self._elements:
            self._pattern = None  # before the larger one, not beside it
            world_size = self.group.topology.world_size
            self._pattern = Pattern(elements=elements, world_size=world_size, device=self.group.device)
            self._elements = elements
        return self._pattern


def _tried(data: _Data, operation: Operation, budget: Budget, on_round: OnRound) -> dict[str, Any]:
    """What became of an operation; those of the sweep only as long as its time lasts."""
    swept = operation.step == SWEPT
    if swept and (reason := budget.against(operation.size)):
        return {"seconds": [], "wrong": None, "left_out": reason}
    started = time.perf_counter()
    done = Trial(data.group, data.of(operation), operation, on_round).run()
    if swept:
        budget.spend(size=operation.size, seconds=_slowest(data.group, time.perf_counter() - started))
    return done


def _slowest(group: Group, seconds: float) -> float:
    """The largest of all ranks' seconds."""
    import torch
    import torch.distributed as dist

    longest = torch.tensor([seconds], device=group.device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    return float(longest)
