"""Gradient shards that wait for their step's other micro-steps in a narrower type than the update takes.

FSDP2 leaves shards in fp32, as the parameters are. ZeRO-2 counts 2 bytes for them: that is what waits, block
by block as they are reduced, and added to the last micro-step's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from runtime.zero.offload.shards import local


class Waiting:
    """The shards that wait.

    Args:
        is_last: whether the backward at hand is the last one of its optimizer step.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, is_last: Callable[[], bool]) -> None:
        self._dtype, self._is_last = dtype, is_last
        self.shards: dict[nn.Parameter, torch.Tensor] = {}
        for parameter in module.parameters():
            if parameter.requires_grad:
                # FSDP2 calls it once it has reduced.
                parameter.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]

    def drop(self) -> None:
        """Forgets them, as `zero_grad` does."""
        self.shards.clear()

    @torch.no_grad()
    def _take(self, parameter: torch.Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        if parameter.grad is None:
            return
        fresh, kept = local(parameter.grad), self.shards.get(parameter)
        if self._is_last():
            if kept is not None:
                fresh += self.shards.pop(parameter)
        elif kept is not None:
            kept += fresh
            parameter.grad = None
        else:
            self.shards[parameter] = fresh.to(self._dtype)
            parameter.grad = None
