"""This rank's shard of a parameter, and tensors that are sharded as a parameter is."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's shard, detached."""
    detached = tensor.detach()
    return detached.to_local() if isinstance(detached, DTensor) else detached


def like(parameter: torch.Tensor, shard: torch.Tensor) -> torch.Tensor:
    """A shard as a tensor that is sharded as the parameter is, on whatever device the shard is.

    Made as FSDP2 makes its own: DTensor.from_local would copy a shard in host memory to the mesh's GPU.
    """
    shard = shard.view(local(parameter).shape)
    if not isinstance(parameter, DTensor):
        return shard
    return DTensor(shard, parameter._spec, requires_grad=False)  # type: ignore[no-untyped-call]
