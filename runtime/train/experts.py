"""Questions about mixtures of experts: here every parameter is one of all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


def has_moe_layers(module: nn.Module) -> tuple[bool, int]:
    """Whether there are layers whose experts are spread over ranks, and over how many: none are."""
    return False, 0


def is_moe_param(param: torch.Tensor) -> bool:
    """Whether a parameter belongs to an expert of some ranks only: none does."""
    return False


def is_moe_param_group(param_group: Mapping[str, Any]) -> bool:
    """Whether a group is of such parameters: none is."""
    return False


def split_params_into_different_moe_groups_for_optimizer(
    param_groups: Mapping[str, Any] | Sequence[Mapping[str, Any]], max_group_size: float | None = None
) -> list[Mapping[str, Any]]:
    """The groups as they are, in a list: none has parameters of experts of some ranks only."""
    return [param_groups] if isinstance(param_groups, Mapping) else list(param_groups)
