"""What a ZeRO stage does to a model: one short file, in the order that matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from runtime.errors import BadInput
from runtime.train.parallel.collectives import SMALLEST_GROUP, AllToAllReduceScatter
from runtime.train.parallel.dims import averages_correctly, shard_group
from runtime.train.parallel.fsdp import sharded, units
from runtime.train.parallel.scalars import narrow, widen


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """Settings of FSDP2 that make a stage.

    `reshard_after_forward` frees gathered parameters after the forward (True), keeps them (False), or keeps
    them sharded over that many ranks (hpZ). `sync_every_micro_step` reduce-scatters gradients after each
    backward, not once in a step; `gather_every_micro_step` keeps no parameters between micro-steps.
    """

    mesh: DeviceMesh
    reshard_after_forward: bool | int
    sync_every_micro_step: bool
    gather_every_micro_step: bool
    precision: MixedPrecisionPolicy
    offload: OffloadPolicy

    def home(self, device: torch.device) -> torch.device:
        """Where shards live between uses."""
        return torch.device("cpu") if isinstance(self.offload, CPUOffloadPolicy) else device


def plan_shards(
    stage: int,
    mesh: DeviceMesh,
    *,
    precision: MixedPrecisionPolicy,
    hpz_size: int = 1,
    offload_to_cpu: bool = False,
    pin_memory: bool = False,
) -> ShardPlan:
    """The settings of a stage: what is kept sharded between micro-steps and after the forward."""
    world_size = mesh.size()
    if hpz_size > 1 and world_size % hpz_size:
        raise BadInput(
            f"share parameters among {hpz_size} ranks (zero_hpz_partition_size)",
            found=f"{world_size} ranks, which cannot be divided by it",
            fix="Write a divisor of the number of ranks, most often the GPUs of a node.",
        )
    secondary = hpz_size if 1 < hpz_size < world_size else True
    return ShardPlan(
        mesh=mesh,
        reshard_after_forward=secondary if stage == 3 else False,
        sync_every_micro_step=stage >= 2,
        gather_every_micro_step=stage == 3,
        precision=precision,
        offload=CPUOffloadPolicy(pin_memory=pin_memory) if offload_to_cpu else OffloadPolicy(),
    )


def shard(model: nn.Module, blocks: Sequence[nn.Module], plan: ShardPlan) -> None:
    """Shards the model in place: each block as a unit, then what is left with the root.

    The root's parameters stay gathered after the forward, since the backward begins with them. A block that
    is tied to another one or to the rest is left to the root.
    """
    scalars = widen(model, plan.mesh)
    for module in (*_untied(model, blocks), model):
        fully_shard(
            module,
            mesh=plan.mesh,
            reshard_after_forward=False if module is model else plan.reshard_after_forward,
            mp_policy=plan.precision,
            offload_policy=plan.offload,
        )
    narrow(sharded(model), scalars)
    _choose_collectives(model, plan.mesh)


def _untied(model: nn.Module, blocks: Sequence[nn.Module]) -> list[nn.Module]:
    """The blocks without those that share a parameter with another one or with the rest."""
    inside = {id(module) for block in blocks for module in block.modules()}
    rest = [p for m in model.modules() if id(m) not in inside for p in m.parameters(recurse=False)]
    owners = Counter([*(p for block in blocks for p in set(block.parameters())), *set(rest)])
    return [block for block in blocks if all(owners[p] == 1 for p in block.parameters())]


def _choose_collectives(model: nn.Module, mesh: DeviceMesh) -> None:
    group = shard_group(mesh)
    if dist.get_world_size(group) > 1 and not averages_correctly(group, torch.device(mesh.device_type)):
        for unit in units(model):
            if not hasattr(unit, "set_force_sum_reduction_for_comms"):
                raise BadInput(
                    f"shard a model over {dist.get_backend(group)}",
                    found=f"torch {torch.__version__} averages there, which fails; 2.8 or newer sums",
                    fix="Use an environment of the kind cpu, cuda128 or cuda130, or NCCL.",
                )
            unit.set_force_sum_reduction_for_comms(True)
    if mesh.device_type == "cpu" and dist.get_world_size(group) >= SMALLEST_GROUP:
        for unit in units(model):
            if hasattr(unit, "set_custom_reduce_scatter"):  # torch 2.8 and later
                unit.set_custom_reduce_scatter(AllToAllReduceScatter())  # type: ignore[arg-type]
