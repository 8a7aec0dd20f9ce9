"""This rank's shard of a parameter, and tensors that are sharded as a parameter is."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard, detached."""
    detached = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else detached


def like(parameter: torch.Tensor, shard: torch.Tensor) -> torch.Tensor:
    """A shard as a tensor that is sharded as the parameter is."""
    shard = shard.view(local(parameter).shape)
    if not isinstance(parameter, DTensor):
        return shard
    return DTensor.from_local(
        shard,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.size(),
        stride=parameter.stride(),
    )
