"""What is filled on this rank, and how whole tensors get there: through all ranks, a span at a time.

Rank 0 holds a span of one tensor, the others no more; a link carries every weight once, as with a scatter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput
from runtime.train.checkpoint.together import from_first
from runtime.train.offload.shards import local
from runtime.train.parallel.dims import Axis, shard_axis
from runtime.train.weights.files import Source

SPAN_BYTES = 16 * 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A tensor to fill: its names, this rank's elements of it, and which of all the elements these are."""

    names: tuple[str, ...]
    shape: torch.Size
    shard: torch.Tensor
    start: int
    needed: bool


def slots_of(model: nn.Module, missing: frozenset[str], mesh: DeviceMesh) -> Iterator[Slot]:
    """Parameters and persistent buffers of a sharded model, and what else is `missing`; tied ones once."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, torch.Tensor] = {}
    persistent = model.state_dict(keep_vars=True)
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *((n, b) for n, b in model.named_buffers(remove_duplicate=False) if n in persistent or n in missing),
    ):
        tensors[id(tensor)] = tensor
        names.setdefault(id(tensor), []).append(name)
    for key, tensor in tensors.items():
        yield Slot(
            names=tuple(names[key]),
            shape=tensor.shape,
            shard=local(tensor).view(-1),
            start=_first_element(tensor, mesh),
            needed=any(name in missing for name in names[key]),
        )


def _first_element(tensor: torch.Tensor, mesh: DeviceMesh) -> int:
    """Where this rank's shard begins: FSDP2 cuts the first dimension as torch.chunk does."""
    if not isinstance(tensor, DTensor):
        return 0
    axis = shard_axis(mesh)
    rows = tensor.shape[0]
    each = -(-rows // axis.size)
    return min(axis.rank * each, rows) * (tensor.numel() // max(rows, 1))


def stream(slot: Slot, source: Source | None, dtype: torch.dtype, ranks: Axis) -> None:
    """Sends a tensor, travelling in `dtype`, from rank 0's `source` to all `ranks`; each keeps its shard."""
    total, step = slot.shape.numel(), SPAN_BYTES // dtype.itemsize
    device = slot.shard.device
    stop = slot.start + slot.shard.numel()
    for begin in range(0, total, step):
        end = min(begin + step, total)
        if source is not None:
            span = source.read(begin, end).to(device, dtype)
        else:
            span = torch.empty(end - begin, dtype=dtype, device=device)
        ranks.broadcast(span)
        low, high = max(begin, slot.start), min(end, stop)
        if low < high:
            slot.shard[low - slot.start : high - slot.start].copy_(span[low - begin : high - begin])


def agreed(act: Callable[[], T], ranks: Axis) -> T:
    """What rank 0 found (JSON), on every rank; what it refused is refused on every rank."""
    found: T | None = None
    fault = None
    if ranks.is_first:
        try:
            found = act()
        except BadInput as e:
            fault = (e.asked, e.found, e.fix)
    found, fault = from_first((found, fault), ranks.group)
    if fault is not None:
        asked, why, fix = fault
        raise BadInput(asked, found=why, fix=fix)
    return cast(T, found)
