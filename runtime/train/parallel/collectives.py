"""Collectives over many tensors at once, and those that FSDP2 uses in place of gloo's slow ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

BUCKET_BYTES = 64 * 1024 * 1024
SMALLEST_GROUP = 3  # with two ranks, gloo's own reduce-scatter moves the same bytes


def broadcast_from_first(tensors: Sequence[torch.Tensor]) -> None:
    """Gives every rank rank 0's values, in place; many small tensors travel as one."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.broadcast(flat, src=0)
        parts = torch.split(flat, [tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Tensors of one type, up to BUCKET_BYTES or one larger tensor; in an order that all ranks share."""
    bucket: list[torch.Tensor] = []
    for tensor in sorted(tensors, key=lambda t: str(t.dtype)):
        size = sum(t.nbytes for t in bucket) + tensor.nbytes
        if bucket and (size > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


class AllToAllReduceScatter:
    """Reduce-scatter as an all-to-all and a local sum, after torch's `ReduceScatter` interface.

    Every rank sends each other rank the part that it will keep: (N-1)/N of the input per rank, against N
    times that with gloo's own (pytorch#149869). Sums run in the input's type, in the order of ranks, so that
    a result does not depend on timing.
    """

    def allocate(
        self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> None:
        size = dist.get_world_size(group)
        received = torch.empty_like(input_tensor)
        dist.all_to_all_single(received, input_tensor, group=group)
        torch.sum(received.view(size, -1), dim=0, out=output_tensor)
        if op == dist.ReduceOp.AVG:
            output_tensor.div_(size)
        elif op != dist.ReduceOp.SUM:
            raise NotImplementedError(f"reduction {op} over all-to-all")
