"""Activation checkpointing: a block keeps its input and computes its activations again in the backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from runtime.train.config.schema import ActivationCheckpointing


def recompute_blocks(
    blocks: Sequence[nn.Module], config: ActivationCheckpointing | None, device: torch.device
) -> None:
    """Makes each block recompute, in place; before sharding, so that one gather serves both passes.

    Random numbers (dropout) are the same in both. With `cpu_checkpointing` inputs wait in host memory.
    """
    if config is None or not config.enabled:
        return
    for block in blocks:
        block.forward = Recomputed(block.forward, config.cpu_checkpointing, device)


class Recomputed:
    """A block's forward that keeps its inputs, and in the backward runs again."""

    def __init__(self, forward: Callable[..., Any], in_host_memory: bool, device: torch.device) -> None:
        self.forward = forward
        self._in_host_memory, self._pinned = in_host_memory, device.type != "cpu"

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **named)
        with self._keep():
            return checkpoint(self.forward, *inputs, use_reentrant=False, **named)

    def _keep(self) -> AbstractContextManager[Any]:
        return save_on_cpu(pin_memory=self._pinned) if self._in_host_memory else nullcontext()
