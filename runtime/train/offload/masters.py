"""Parameters whose shards are mapped from a file, so that between uses they take no memory of the process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from runtime.train.offload.files import StateFile
from runtime.train.offload.layout import PAGE_BYTES, whole_pages
from runtime.train.offload.shards import like, local


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Bytes of this rank's shards in the file, and of those that had to stay in memory."""

    in_file: int
    in_memory: int


def keep_in_file(model: nn.Module, folder: Path, *, frozen: bool) -> Kept:
    """Moves the shards of a sharded model's parameters into a file, block by block.

    FSDP2 reads them there, and the optimizer updates them there. A shard that FSDP2 pads (its first dimension
    cannot be divided by the ranks) stays in memory, since FSDP2 copies it.

    Args:
        frozen: those of parameters without a gradient as well.

    Raises:
        OffloadFailed: the folder cannot be used, or has too little space.
    """
    chosen = [p for p in model.parameters() if (frozen or p.requires_grad) and local(p).numel()]
    places, total = {}, 0
    for parameter in chosen:
        places[id(parameter)] = total
        total += whole_pages(local(parameter).nbytes, PAGE_BYTES)
    file = StateFile(folder, total)
    whole = file.mapped()

    def move(tensor: torch.Tensor) -> torch.Tensor:
        place = places.get(id(tensor))
        if place is None:
            return tensor
        shard = local(tensor)
        target = whole[place : place + shard.nbytes].view(shard.dtype).view(shard.shape)
        return like(tensor, target.copy_(shard))

    # The door of Module.to: FSDP2 follows what changes there.
    model._apply(move)  # type: ignore[no-untyped-call]
    low, high = whole.data_ptr(), whole.data_ptr() + len(whole)
    moved = sum(local(p).nbytes for p in chosen if low <= local(p).data_ptr() < high)
    return Kept(in_file=moved, in_memory=sum(local(p).nbytes for p in chosen) - moved)
