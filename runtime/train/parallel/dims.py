"""How a job's ranks are laid out: the axes of their mesh, of which only data-parallel is longer than 1.

The names are torchtitan's. Whoever trains asks an axis for its rank, its size and its group: "rank 0 of all"
and "all ranks" would silently mean "data-parallel" once there is another axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from runtime.topology import Topology


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
