"""One collective operation of the smoke test on this rank: repeated, timed, every element checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from runtime.comm.group import Group
from runtime.smoke.collectives.pattern import Pattern, Wrong, compare
from runtime.smoke.collectives.plan import Operation

if TYPE_CHECKING:
    from torch import Tensor

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
