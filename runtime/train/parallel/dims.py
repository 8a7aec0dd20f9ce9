"""How a job's ranks are laid out: the axes of their mesh, of which only data-parallel is longer than 1.

A device mesh says on which ranks a parameter is replicated, and over which it is sharded.
The names are torchtitan's. Whoever trains asks an axis for its rank, its size and its group: "rank 0 of all"
and "all ranks" would silently mean "data-parallel" once there is another axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from runtime.topology import Topology

REPLICATE, SHARD = "replicate", "shard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The ranks of one axis that this rank is one of: its number among them, how many, their process group.

    `group` is None where these are all ranks of the job.
    """

    rank: int
    size: int
    group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the axis' rank 0."""
        return self.rank == 0

    def all_reduce(self, tensor: torch.Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> None:
        """Reduces over the axis in place. Collective."""
        dist.all_reduce(tensor, op=op, group=self.group)

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Gives every rank the tensor of the axis' rank 0, in place. Collective."""
        dist.broadcast(tensor, group=self.group, group_src=0)

    def beside(self, backend: str) -> dist.ProcessGroup:
        """Another group of the same ranks, whose messages are not taken for this one's. Collective."""
        made: dist.ProcessGroup = dist.new_group(dist.get_process_group_ranks(self.group), backend=backend)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelDims:
    """This rank's place on every axis."""

    dp: Axis

    @classmethod
    def of(cls, topology: Topology) -> ParallelDims:
        """All ranks are data-parallel."""
        return cls(dp=Axis(rank=topology.rank, size=topology.world_size))


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
