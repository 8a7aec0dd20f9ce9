"""Gradient shards that wait for their step's other micro-steps in a narrower type than the update takes.

FSDP2 leaves shards in fp32, as the parameters are. ZeRO-2 counts 2 bytes for them: in that type they are each
parameter's gradient, block by block as they are reduced, until the step widens them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from runtime.train.offload.shards import like, local


def narrow_gradients(parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
    """Keeps the gradients of sharded parameters in this type, once FSDP2 has reduced them."""

    def narrow(parameter: torch.Tensor) -> None:
        _convert(parameter, dtype)

    for parameter in parameters:
        # torch before 2.10 takes no gradient of another type than its parameter's.
        if parameter.requires_grad and hasattr(parameter, "grad_dtype"):
            parameter.grad_dtype = None
            parameter.register_post_accumulate_grad_hook(narrow)  # type: ignore[no-untyped-call]


def widen_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Makes gradients the parameters' type again, one by one."""
    for parameter in parameters:
        _convert(parameter, parameter.dtype)


@torch.no_grad()
def _convert(parameter: torch.Tensor, dtype: torch.dtype) -> None:
    if parameter.grad is not None and parameter.grad.dtype != dtype:
        parameter.grad = like(parameter, local(parameter.grad).to(dtype))
