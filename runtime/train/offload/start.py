"""Puts a sharded model's states on disk on every rank, or on none: all learn of one rank's full disk."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runtime.comm.exchange import all_gather_json
from runtime.comm.group import Group
from runtime.errors import BadInput, OffloadFailed
from runtime.train.config.schema import Config
from runtime.train.config.training import Adam
from runtime.train.offload.adam import DiskAdam
from runtime.train.offload.files import StateFile, Transfers
from runtime.train.offload.layout import PAGE_BYTES, whole_pages
from runtime.train.offload.shards import like, local
from runtime.train.parallel.dims import ParallelDims

logger = logging.getLogger("runtime")
_M_MMAP_THRESHOLD = -3  # mallopt(3)
_LARGE_BYTES = 4 * 1024 * 1024


def optimizer_on_disk(
    model: nn.Module,
    config: Config,
    group: Group,
    dims: ParallelDims,
    passed: object,
    groups: list[dict[str, Any]],
) -> torch.optim.Optimizer:
    """Adam with masters and moments in files under `nvme_path`. Collective.

    Args:
        passed: the optimizer that the script made, if any: it cannot be fed from files.
        groups: the parameter groups over the sharded model.

    Raises:
        BadInput: the optimizer is not the configuration's Adam or AdamW.
        OffloadFailed: a rank's disk refused; every rank raises it.
    """
    wanted = config.optimizer
    if passed is not None or not isinstance(wanted, Adam):
        raise BadInput(
            "offload the optimizer to nvme",
            found="an optimizer that the script made" if passed is not None else "no optimizer",
            fix="Describe Adam or AdamW in the configuration's optimizer block, or offload to cpu.",
        )
    made, fault = None, None
    try:
        made = _start(model, config, wanted, groups)
    except OffloadFailed as e:
        fault = e
    _agree(group, fault)
    assert made is not None
    optimizer, kept = made
    if dims.dp.is_first:
        _say(optimizer, kept, config)
    return optimizer


def _start(
    model: nn.Module, config: Config, wanted: Adam, groups: list[dict[str, Any]]
) -> tuple[DiskAdam, Kept]:
    zero = config.zero_optimization
    folder = Path(zero.offload_optimizer.nvme_path or "")
    kept = keep_in_file(model, folder, frozen=zero.offload_param.device == "nvme")
    trained = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    transfers = Transfers(threads=config.aio.queue_depth, block_bytes=config.aio.block_size)
    optimizer = DiskAdam(
        trained,
        wanted,
        folder=folder,
        sub_group_size=zero.sub_group_size,
        buffer_count=zero.offload_optimizer.buffer_count,
        transfers=transfers,
    )
    return optimizer, kept


def _agree(group: Group, fault: OffloadFailed | None) -> None:
    topology = group.topology
    told = fault and (fault.asked, f"rank {topology.rank} on {topology.hostname}: {fault.found}", fault.fix)
    failures = [one for one in all_gather_json(told) if one is not None]
    if failures:
        asked, _, fix = failures[0]
        raise OffloadFailed(asked, found="; ".join(found for _, found, _ in failures), fix=fix)


def _say(optimizer: DiskAdam, kept: Kept, config: Config) -> None:
    logger.info(
        "offload to %s: %d bytes of parameters and %d of moments in unnamed files of each rank, %s; "
        "%d bytes of shards that FSDP2 pads stay in memory",
        config.zero_optimization.offload_optimizer.nvme_path,
        kept.in_file,
        optimizer.bytes_on_disk,
        "direct I/O" if optimizer.direct else "through the page cache (the file system refuses O_DIRECT)",
        kept.in_memory,
    )


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


def return_freed_memory() -> None:
    """Keeps large tensors out of glibc's heap, for the whole process; elsewhere it does nothing.

    Left alone, glibc raises its threshold with the first large tensor that is freed, and the heap then
    fragments: 200 to 400 MB were held of a model of 400 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
