"""The device mesh: on which ranks a parameter is replicated, and over which it is sharded."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from runtime.train.parallel.dims import Axis

REPLICATE, SHARD = "replicate", "shard"


def build_mesh(stage: int, world_size: int, device: torch.device) -> DeviceMesh:
    """Stage 0 replicates over all ranks and shards over one; the others shard over all.

    Both are the same two-axis or one-axis mesh of FSDP2, so that no stage has a mechanism of its own.
    """
    if stage == 0:
        return init_device_mesh(device.type, (world_size, 1), mesh_dim_names=(REPLICATE, SHARD))
    return init_device_mesh(device.type, (world_size,), mesh_dim_names=(SHARD,))


def shard_group(mesh: DeviceMesh) -> dist.ProcessGroup:
    """The ranks that together hold one copy of the parameters."""
    return mesh.get_group(SHARD)


def shard_axis(mesh: DeviceMesh) -> Axis:
    """The same ranks as an axis."""
    group = shard_group(mesh)
    return Axis(rank=dist.get_rank(group), size=dist.get_world_size(group), group=group)


def averages_correctly(group: dist.ProcessGroup, device: torch.device) -> bool:
    """Whether the backend's AVG reduce-scatter averages; gloo once summed without a word (pytorch#162338)."""
    size = dist.get_world_size(group)
    ours = torch.full((size,), float(dist.get_rank(group)), device=device)
    mean = torch.empty(1, device=device)
    # torch 2.13 renamed it and warns of the old name.
    reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    try:
        reduce_scatter(mean, ours, op=dist.ReduceOp.AVG, group=group)
    except RuntimeError:
        return False
    return abs(mean.item() - (size - 1) / 2) < 1e-6
