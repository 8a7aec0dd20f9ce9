"""Every way to drop gradients drops all of them, also those that FSDP2 keeps where nobody else looks."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from runtime.train.parallel.fsdp import Sharded, holders, sharded

# Weak on both sides: a parameter's record holds its modules.
_held: weakref.WeakKeyDictionary[nn.Module, list[weakref.ref[Sharded]]] = weakref.WeakKeyDictionary()


def follow_modules(model: nn.Module) -> None:
    """Makes `zero_grad` of the model and of each of its modules drop what waits of their parameters."""
    for parameter in sharded(model):
        for module, _ in holders(parameter):
            _held.setdefault(module, []).append(weakref.ref(parameter))
    for module in model.modules():
        # A partial is copied with its module, as a closure would not be.
        module.zero_grad = partial(_zero_module, module)  # type: ignore[method-assign]


def follow_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Makes the optimizer's `zero_grad` drop what waits of its parameters."""
    plain = optimizer.zero_grad

    def zero_grad(set_to_none: bool = True) -> None:
        plain(set_to_none)
        ours = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        _drop((p for p in sharded(model) if id(p.sharded_param) in ours), set_to_none)

    optimizer.zero_grad = zero_grad  # type: ignore[method-assign]


def _zero_module(module: nn.Module, set_to_none: bool = True) -> None:
    type(module).zero_grad(module, set_to_none)
    found = [ref() for part in module.modules() for ref in _held.get(part, ())]
    _drop((parameter for parameter in found if parameter is not None), set_to_none)


def _drop(parameters: Iterable[Sharded], set_to_none: bool) -> None:
    for parameter in parameters:
        _clear(parameter.sharded_param, "grad", set_to_none)
        _clear(parameter, "unsharded_accumulated_grad", set_to_none)
        if hasattr(parameter, "_unsharded_param"):
            _clear(parameter._unsharded_param, "grad", set_to_none)


def _clear(owner: Any, name: str, set_to_none: bool) -> None:
    gradient = getattr(owner, name)
    if gradient is None:
        return
    if set_to_none:
        setattr(owner, name, None)
    else:
        gradient.detach().zero_()
