"""Activation checkpointing: a block keeps its input and computes its activations again in the backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from runtime.zero.config.schema import ActivationCheckpointing


def recompute_blocks(
    blocks: Sequence[nn.Module], config: ActivationCheckpointing | None, device: torch.device
) -> None:
    """Makes each block recompute, in place; before sharding, so that one gather serves both passes.

    Random numbers (dropout) are the same in both. With `cpu_checkpointing` inputs wait in host memory.
    """
    if config is None or not config.enabled:
        return
    for block in blocks:
        block.forward = _recomputed(block.forward, config.cpu_checkpointing, device)


def _recomputed(
    forward: Callable[..., Any], in_host_memory: bool, device: torch.device
) -> Callable[..., Any]:
    def keep() -> AbstractContextManager[Any]:
        return save_on_cpu(pin_memory=device.type != "cpu") if in_host_memory else nullcontext()

    def call(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        with keep():
            return checkpoint(forward, *inputs, use_reentrant=False, **named)

    return call
