"""How a script for ZeRO-3 builds a model and changes parameters before they are sharded.

They are whole until `initialize`, on every rank. So what is asked of them here is that they stay equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput


class Init:
    """Within it a model is built as it is elsewhere, whole in this process's memory; `initialize` shards it.

    A model that no process can hold is built in `runtime.without_weights()`.
    """

    def __init__(self, module: nn.Module | None = None, *_: Any, enabled: bool = True, **__: Any) -> None:
        self.module = module

    def __enter__(self) -> Init:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to undo."""


def zero_wrapper_for_fp_tensor_constructor(fn: Any, *_: Any, **__: Any) -> Any:
    """A constructor of tensors as it is: within `Init` they are of their own type and on their own device."""
    return fn


class ZeroParamType(Enum):
    """How DeepSpeed holds a parameter."""

    NORMAL = 1
    PARTITIONED = 2
    REMOTE = 3


def is_zero_param(parameter: Any) -> bool:
    """Whether a parameter is cut over the ranks."""
    return isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")


def register_external_parameter(module: nn.Module, parameter: nn.Parameter) -> None:
    """Nothing to note: what a block uses of itself is whole while it runs, and the root's always is."""


def unregister_external_parameter(module: nn.Module, parameter: nn.Parameter) -> None:
    """Nothing was noted."""


_LEAF = "_z3_leaf"


def set_z3_leaf_modules(
    model: nn.Module, leaf_module_classes: Sequence[type[nn.Module] | str], raise_if_not_found: bool = True
) -> list[nn.Module]:
    """The modules of these classes, marked; they are fetched whole as they are, with their transformer block.

    Raises:
        BadInput: the model has none.
    """
    found = [module for module in model.modules() if _is_one(module, leaf_module_classes)]
    if not found and raise_if_not_found:
        raise BadInput(
            "mark leaf modules of stage 3",
            found=f"no module of {[str(one) for one in leaf_module_classes]} in {type(model).__name__}",
            fix="Name a class of the model's modules.",
        )
    for module in found:
        set_z3_leaf_module(module, True)
    return found


def unset_z3_leaf_modules(
    model: nn.Module, leaf_module_classes: Sequence[type[nn.Module] | str], raise_if_not_found: bool = True
) -> list[nn.Module]:
    """Takes the marks away again."""
    found = [module for module in model.modules() if _is_one(module, leaf_module_classes)]
    for module in found:
        set_z3_leaf_module(module, False)
    return found


def get_z3_leaf_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that are marked."""
    return [module for module in model.modules() if z3_leaf_module(module)]


def z3_leaf_module(module: nn.Module) -> bool:
    """Whether a module is marked."""
    return bool(getattr(module, _LEAF, False))


def set_z3_leaf_module(module: nn.Module, flag: bool) -> None:
    """Marks a module, or takes its mark away."""
    setattr(module, _LEAF, flag)


def _is_one(module: nn.Module, kinds: Sequence[type[nn.Module] | str]) -> bool:
    name = type(module).__name__
    return any(kind == name if isinstance(kind, str) else isinstance(module, kind) for kind in kinds)


@contextmanager
def OnDevice(dtype: torch.dtype, device: str | torch.device = "meta", enabled: bool = True) -> Iterator[None]:
    """Within it new tensors are of this type and on this device."""
    if not enabled:
        yield
        return
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(kept)
