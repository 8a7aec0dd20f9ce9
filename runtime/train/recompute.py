"""Activation checkpointing that a model does itself: its parts call `checkpoint`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint as keep_inputs


@dataclass(slots=True)
class _Settings:
    is_configured: bool = False
    in_host_memory: bool = False


_settings = _Settings()


def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function, keeps its inputs only, and calls it again in the backward."""
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    keep = save_on_cpu(pin_memory=torch.cuda.is_available()) if _settings.in_host_memory else nullcontext()
    with keep:
        return keep_inputs(function, *args, use_reentrant=False, **kwargs)


def configure(
    mpu_: Any = None,
    deepspeed_config: Any = None,
    partition_activations: bool | None = None,
    contiguous_checkpointing: bool | None = None,
    num_checkpoints: int | None = None,
    checkpoint_in_cpu: bool | None = None,
    synchronize: bool | None = None,
    profile: bool | None = None,
) -> None:
    """Chooses whether kept inputs wait in host memory (`checkpoint_in_cpu`).

    The rest changes nothing: there is one rank for each replica of the activations, and PyTorch's allocator
    keeps what is needed.
    """
    _settings.is_configured = True
    _settings.in_host_memory = bool(checkpoint_in_cpu)


def is_configured() -> bool:
    """Whether `configure` was called."""
    return _settings.is_configured


def reset() -> None:
    """Nothing to forget between steps: nothing is numbered."""


def partition_activations_in_checkpoint(partition_activation: bool) -> None:
    """Changes nothing; see `configure`."""


def set_num_layers(nlayers: int) -> None:
    """Changes nothing; see `configure`."""
