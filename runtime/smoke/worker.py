"""One rank of the smoke test: runs the operations, checks every element, and always says where it is."""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runtime.comm.group import Group, process_group
from runtime.smoke import marks
from runtime.smoke.pattern import Pattern, Wrong, compare
from runtime.smoke.plan import Operation, operations
from runtime.topology import Topology

if TYPE_CHECKING:
    from torch import Tensor

# An operation is repeated until it has used this time, within these bounds; the first round warms up.
_BUDGET_SECONDS = 0.2
_MOST_ROUNDS = 20
# Own limit of the backend, above the launcher's, which knows more and so speaks first.
_MARGIN_SECONDS = 10.0


class Voice:
    """Says on standard output, in whole lines, where this rank is; twice a second even when blocked."""

    def __init__(self) -> None:
        self._place: dict[str, Any] = {"operation": -1, "round": -1}
        self._silence = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def say(self, event: str, **values: Any) -> None:
        """One marked line, at once and unbroken."""
        os.write(1, marks.encode(event, **values).encode())

    def at(self, operation: int, round_number: int) -> None:
        """Where the next beats report this rank."""
        self._place = {"operation": operation, "round": round_number}

    def _beat(self) -> None:
        while not self._silence.wait(marks.BEAT_SECONDS):
            self.say("beat", **self._place)

    def close(self) -> None:
        """Ends the beats."""
        self._silence.set()
        self._thread.join()


def main(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """A rank as `python -m runtime smoke` starts it: its options, and its place from `environ`."""
    parser = argparse.ArgumentParser(prog="python -m runtime smoke")
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--timeout", type=float, required=True)
    options = parser.parse_args(words)
    sizes = tuple(int(size) for size in options.sizes.split(","))
    work(Topology.from_environment(environ), sizes=sizes, timeout_seconds=options.timeout)


def work(topology: Topology, *, sizes: Sequence[int], timeout_seconds: float) -> None:
    """Runs all operations over the job's ranks: NCCL where there are GPUs, else Gloo."""
    voice = Voice()
    voice.say(marks.STARTED, hostname=topology.hostname, pid=os.getpid())
    import torch

    # Comparing is cheap; threads of several ranks on one machine would only spin against each other.
    torch.set_num_threads(1)
    voice.say(marks.IMPORTED, torch=torch.__version__)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    with process_group(topology, backend=backend, timeout_seconds=timeout_seconds + _MARGIN_SECONDS) as group:
        voice.say(marks.JOINED, backend=backend)
        plan = operations(topology.world_size, sizes)
        elements = max(operation.size for operation in plan) // 4
        pattern = Pattern(elements=elements, world_size=topology.world_size, device=group.device)
        for operation in plan:
            voice.say("begin", operation=operation.number)
            voice.say("done", operation=operation.number, **Trial(group, pattern, voice, operation).run())
    voice.close()


class Trial:
    """One operation on this rank, repeated."""

    def __init__(self, group: Group, pattern: Pattern, voice: Voice, operation: Operation) -> None:
        import torch

        self._group = group
        self._rank = group.topology.rank
        self._pattern = pattern
        self._voice = voice
        self._operation = operation
        self._elements = operation.size // 4
        self._buffer = torch.empty(max(1, self._elements), dtype=torch.float32, device=group.device)
        self._round_of = self._rounds()[operation.step]

    def _rounds(self) -> dict[str, Callable[[int], tuple[float, Wrong | None]]]:
        return {
            "broadcast": self._broadcast,
            "send-recv": self._send_recv,
            "ring": self._ring,
            "barrier": self._barrier,
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
        self._voice.at(self._operation.number, number)
        return self._round_of(number)

    def _agree_on_rounds(self, first_seconds: float) -> int:
        """As many as the budget allows by the slowest rank's first round; the same number on all."""
        import torch
        import torch.distributed as dist

        slowest = torch.tensor([first_seconds], device=self._group.device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        return max(1, min(_MOST_ROUNDS, int(_BUDGET_SECONDS / max(float(slowest), 1e-6))))

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

    def _broadcast(self, number: int) -> tuple[float, Wrong | None]:
        import torch.distributed as dist

        root = self._operation.source
        expected = self._pattern.of(root, number, self._elements)
        self._fill(expected if self._rank == root else None)
        seconds = self._timed(lambda: dist.broadcast(self._buffer, src=root))
        return seconds, compare(self._buffer, expected)

    def _all_reduce(self, number: int) -> tuple[float, Wrong | None]:
        import torch.distributed as dist

        self._fill(self._pattern.of(self._rank, number, self._elements))
        seconds = self._timed(lambda: dist.all_reduce(self._buffer))
        return seconds, compare(self._buffer, self._pattern.sum(number, self._elements))

    def _barrier(self, _number: int) -> tuple[float, Wrong | None]:
        import torch.distributed as dist

        return self._timed(dist.barrier), None

    def _send_recv(self, number: int) -> tuple[float, Wrong | None]:
        """One direction of one link, while the others wait; the clock stops at a one-float answer."""
        source, target = self._operation.source, self._operation.target
        expected = self._pattern.of(source, number, self._elements)
        self._fill(expected if self._rank == source else None)
        seconds = self._timed(lambda: self._carry(source, target))
        return seconds, compare(self._buffer, expected) if self._rank == target else None

    def _carry(self, source: int, target: int) -> None:
        import torch
        import torch.distributed as dist

        answer = torch.zeros(1, device=self._group.device)
        if self._rank == source:
            dist.send(self._buffer, dst=target)
            dist.recv(answer, src=target)
        elif self._rank == target:
            dist.recv(self._buffer, src=source)
            dist.send(answer, dst=source)

    def _ring(self, number: int) -> tuple[float, Wrong | None]:
        """Every rank to its neighbour at once; `target` of the operation is the direction."""
        import torch.distributed as dist

        world_size, direction = self._group.topology.world_size, self._operation.target
        source = (self._rank - direction) % world_size
        target = (self._rank + direction) % world_size
        outgoing = self._pattern.of(self._rank, number, self._elements).contiguous()
        self._fill(None)

        def exchange() -> None:
            pending = [
                dist.P2POp(dist.isend, outgoing, target),
                dist.P2POp(dist.irecv, self._buffer, source),
            ]
            for request in dist.batch_isend_irecv(pending):
                request.wait()

        seconds = self._timed(exchange)
        return seconds, compare(self._buffer, self._pattern.of(source, number, self._elements))

    def _fill(self, contents: Tensor | None) -> None:
        """The contents, or a value that no pattern has, so that an untouched buffer shows."""
        if contents is None:
            self._buffer.fill_(-1.0)
        else:
            self._buffer.copy_(contents)
