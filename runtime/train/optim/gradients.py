"""The norm of sharded gradients and their scaling, on the shards: no whole gradient is ever built."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor


def local_gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """This rank's shards of the gradients that exist, without empty ones."""
    shards = [_local(p.grad) for p in parameters if p.grad is not None]
    return [shard for shard in shards if shard.numel()]


def local_square(shards: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The square of the 2-norm over this rank's shards, fp32. Not finite if any gradient is not.

    Shards may live in host memory while `device` is where the number is wanted.
    """
    square = torch.zeros((), dtype=torch.float32, device=device)
    for kind in {shard.device for shard in shards}:
        norms = torch._foreach_norm([s for s in shards if s.device == kind], 2, dtype=torch.float32)
        square += torch.stack(norms).square().sum().to(device)
    return square


def clip_factor(norm: float, limit: float) -> float:
    """What gradients of this norm are multiplied by so that it does not exceed the limit; 0 is no limit."""
    return min(1.0, limit / (norm + 1e-6)) if limit > 0 else 1.0


def multiply(shards: list[torch.Tensor], factor: float) -> None:
    """Scales gradients in place; a factor of 1 costs nothing."""
    if factor != 1.0 and shards:
        torch._foreach_mul_(shards, factor)


def first_not_finite(named: Iterable[tuple[str, nn.Parameter]]) -> str | None:
    """The first parameter, in the model's order, whose gradient on this rank is not finite."""
    for name, parameter in named:
        if parameter.grad is not None and not torch.isfinite(_local(parameter.grad)).all():
            return name
    return None


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
