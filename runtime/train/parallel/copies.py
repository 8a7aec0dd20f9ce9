"""`copy.deepcopy` of a sharded model, or of a part of it, is a plain module of whole weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput

# What hooks, wrapped methods and other things of theirs are told by: where they were written.
_OURS = ("runtime.train.", "torch.distributed.fsdp.", "torch._dynamo.")
_KEPT_BY_FSDP = ("__composable_api_state_key", "_fsdp_use_orig_params", "_is_fsdp_managed_module")


class Copied(Protocol):
    """A parameter that can be given out whole."""

    is_here: bool

    def copy(self) -> torch.Tensor:
        """The whole parameter in the compute type."""
        ...


def follow_copies(model: nn.Module, held: Mapping[nn.Module, Mapping[str, Copied]]) -> None:
    """Makes copies of a model's modules plain ones: no units, no shards, none of our hooks.

    Args:
        held: the parameters that each module has, by name; a tied one is the same in several.
    """
    for module in model.modules():
        module.__deepcopy__ = partial(_plain, module, held.get(module, {}))  # type: ignore[assignment]


def _plain(module: nn.Module, held: Mapping[str, Copied], memo: dict[int, Any]) -> nn.Module:
    kind = type(module)
    if isinstance(module, FSDPModule):
        kind = kind.__mro__[2]  # FSDP2 makes a class of FSDPModule and the module's own
    copied: nn.Module = kind.__new__(kind)
    memo[id(module)] = copied
    for name, value in module.__dict__.items():
        if name == "_parameters":
            found: Any = {key: _whole(one, held.get(key), memo) for key, one in value.items()}
        elif "_hook" in name and isinstance(value, dict):
            found = type(value)(
                {key: copy.deepcopy(one, memo) for key, one in value.items() if not _is_ours(one)}
            )
        elif name.startswith(_KEPT_BY_FSDP) or _is_ours(value):
            continue
        else:
            found = copy.deepcopy(value, memo)
        copied.__dict__[name] = found
    return copied


def _whole(parameter: nn.Parameter | None, held: Copied | None, memo: dict[int, Any]) -> nn.Parameter | None:
    if parameter is None or held is None:
        return copy.deepcopy(parameter, memo)
    if id(held) not in memo:
        if isinstance(parameter, DTensor) and not held.is_here:
            raise BadInput(
                "copy a model",
                found="stage 3, in which each rank has a part of it",
                fix="Copy it before runtime.initialize, or on every rank within `with "
                "GatheredParameters(model.parameters()):`, which runtime.train.parallel.whole has.",
            )
        value = held.copy() if isinstance(parameter, DTensor) else parameter.detach().clone()
        memo[id(held)] = nn.Parameter(value, parameter.requires_grad)
    made: nn.Parameter = memo[id(held)]
    return made


def _is_ours(value: Any) -> bool:
    hook = getattr(value, "hook", value)  # as nn.Module wraps some
    function = getattr(hook, "func", hook)
    origin = getattr(function, "__module__", None) or ""
    return callable(value) and not isinstance(value, type | nn.Module) and origin.startswith(_OURS)
