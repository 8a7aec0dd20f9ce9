"""One rank of the smoke test: repeats, times and checks every operation, and always says where it is."""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.comm.group import Group, process_group
from runtime.smoke.collectives import events, transport
from runtime.smoke.collectives.pattern import Pattern, Wrong, compare
from runtime.smoke.collectives.plan import SWEPT, TRAINING, Budget, Operation, operations
from runtime.topology import Topology

if TYPE_CHECKING:
    from torch import Tensor

# Own limit of the backend, above the launcher's, which knows more and so speaks first.
_MARGIN_SECONDS = 10.0
# A size of the sweep that may take longer than this share of a step's time-out is not tried.
_STEP_SHARE = 0.5
# An operation is repeated until it has used this time, within these bounds; the first round warms up.
_BUDGET_SECONDS = 0.1
_MOST_ROUNDS = 20

OnRound = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """A round: what all ranks do together, the tensor into which it writes, and what must then be there."""

    action: Callable[[], object]
    found: Tensor | None = None
    expected: Tensor | None = None


class Trial:
    """One operation; `on_round` hears the number of each round before it begins."""

    def __init__(self, group: Group, pattern: Pattern, operation: Operation, on_round: OnRound) -> None:
        import torch

        self._group = group
        self._rank = group.topology.rank
        self._world_size = group.topology.world_size
        self._pattern = pattern
        self._operation = operation
        self._on_round = on_round
        self._elements = operation.size // 4
        # Of an operation that gives every rank a part: how long that is, and which one is ours.
        self._part = self._elements // self._world_size
        self._own = slice(self._rank * self._part, (self._rank + 1) * self._part)
        self._buffer = torch.empty(max(1, self._elements), dtype=torch.float32, device=group.device)
        self._exchange_of = self._exchanges()[operation.step]

    def _exchanges(self) -> dict[str, Callable[[int], _Exchange]]:
        return {
            "broadcast": self._broadcast,
            "ring": self._ring,
            "barrier": self._barrier,
            "all-gather": self._all_gather,
            "reduce-scatter": self._reduce_scatter,
            "all-to-all": self._all_to_all,
            "all-reduce": self._all_reduce,
        }

    def run(self) -> dict[str, Any]:
        """Times of the rounds in seconds after the first, and the first wrong contents."""
        first, wrong = self._round(0)
        rounds = self._agree_on_rounds(first)
        seconds = []
        for number in range(1, rounds + 1):
            taken, more = self._round(number)
            seconds.append(taken)
            wrong = wrong or more
        return {"seconds": seconds, "wrong": asdict(wrong) if wrong else None}

    def _round(self, number: int) -> tuple[float, Wrong | None]:
        self._on_round(number)
        exchange = self._exchange_of(number)
        seconds = self._timed(exchange.action)
        if exchange.found is None or exchange.expected is None:
            return seconds, None
        return seconds, compare(exchange.found, exchange.expected)

    def _agree_on_rounds(self, first_seconds: float) -> int:
        """As many as the budget allows by the slowest rank's first round; the same number on all."""
        slowest = _slowest(self._group, first_seconds)
        return max(1, min(_MOST_ROUNDS, int(_BUDGET_SECONDS / max(slowest, 1e-6))))

    def _timed(self, action: Callable[[], object]) -> float:
        """Seconds of the action, begun by all ranks together and ended on the device."""
        import torch
        import torch.distributed as dist

        dist.barrier()
        started = time.perf_counter()
        action()
        if self._group.device.type == "cuda":
            torch.cuda.synchronize(self._group.device)
        return time.perf_counter() - started

    def _broadcast(self, number: int) -> _Exchange:
        import torch.distributed as dist

        root = self._operation.source
        expected = self._pattern.of(root, number, self._elements)
        buffer = self._filled(expected if self._rank == root else None)
        return _Exchange(action=lambda: dist.broadcast(buffer, src=root), found=buffer, expected=expected)

    def _ring(self, number: int) -> _Exchange:
        """Every rank to its neighbour at once; `target` of the operation is the direction."""
        import torch.distributed as dist

        source = (self._rank - self._operation.target) % self._world_size
        target = (self._rank + self._operation.target) % self._world_size
        outgoing = self._pattern.of(self._rank, number, self._elements)
        buffer = self._filled(None)

        def exchange() -> None:
            pending = [dist.P2POp(dist.isend, outgoing, target), dist.P2POp(dist.irecv, buffer, source)]
            for request in dist.batch_isend_irecv(pending):
                request.wait()

        expected = self._pattern.of(source, number, self._elements)
        return _Exchange(action=exchange, found=buffer, expected=expected)

    def _barrier(self, _number: int) -> _Exchange:
        import torch.distributed as dist

        return _Exchange(action=dist.barrier)

    def _all_gather(self, number: int) -> _Exchange:
        import torch
        import torch.distributed as dist

        parts = [self._pattern.of(rank, number, self._part) for rank in range(self._world_size)]
        buffer = self._filled(None)
        own = parts[self._rank]
        return _Exchange(
            action=lambda: dist.all_gather_into_tensor(buffer, own), found=buffer, expected=torch.cat(parts)
        )

    def _reduce_scatter(self, number: int) -> _Exchange:
        import torch.distributed as dist

        contribution = self._pattern.of(self._rank, number, self._elements)
        own = self._filled(None)[: self._part]
        return _Exchange(
            action=lambda: dist.reduce_scatter_tensor(own, contribution),
            found=own,
            expected=self._pattern.sum(number, self._elements)[self._own],
        )

    def _all_to_all(self, number: int) -> _Exchange:
        import torch
        import torch.distributed as dist

        sent = [self._pattern.of(rank, number, self._elements) for rank in range(self._world_size)]
        buffer = self._filled(None)
        return _Exchange(
            action=lambda: dist.all_to_all_single(buffer, sent[self._rank]),
            found=buffer,
            expected=torch.cat([of_rank[self._own] for of_rank in sent]),
        )

    def _all_reduce(self, number: int) -> _Exchange:
        import torch.distributed as dist

        buffer = self._filled(self._pattern.of(self._rank, number, self._elements))
        expected = self._pattern.sum(number, self._elements)
        return _Exchange(action=lambda: dist.all_reduce(buffer), found=buffer, expected=expected)

    def _filled(self, contents: Tensor | None) -> Tensor:
        """The buffer with the contents, or with what no pattern has, so that what stays untouched shows."""
        if contents is None:
            return self._buffer.fill_(-1.0)
        return self._buffer.copy_(contents)


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
