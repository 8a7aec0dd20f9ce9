"""What leaves the engine's hands is whole: state dicts and pickles hold plain tensors, on any one rank.

Stages 0 to 2, and one rank. In stage 3 no rank has whole parameters, and whoever asks is told what to call.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch._utils import _rebuild_parameter

from runtime.errors import BadInput
from runtime.train.parallel.fsdp import Sharded, UnitState, holders, unit_states, whole_here
from runtime.train.parallel.gathered import Gathered

GetWhole = Callable[[], torch.Tensor]


def give_whole(model: nn.Module, gathered: Gathered | None, *, is_here: bool) -> None:
    """Makes state dicts and pickles of the model's parameters hold whole tensors in the compute type, copies.

    Args:
        gathered: what stages 1 and 2 gather; None where a rank's shards are whole.
        is_here: whether every rank has all parameters; where not, asking is refused.
    """
    held: dict[nn.Module, dict[str, _Whole]] = defaultdict(dict)
    for state in unit_states(model):
        for parameter in state.fsdp_params:
            one = _Whole(state, parameter, gathered, is_here)
            parameter.sharded_param.__reduce_ex__ = one.pickler()
            for module, name in holders(parameter):
                held[module][name] = one
    for module, wholes in held.items():
        if is_here:
            module.register_state_dict_post_hook(_hook(wholes))  # type: ignore[no-untyped-call]
        else:
            module.register_state_dict_pre_hook(_refuse)  # type: ignore[no-untyped-call]


class _Whole:
    """A parameter that is given out whole."""

    def __init__(
        self, state: UnitState, parameter: Sharded, gathered: Gathered | None, is_here: bool
    ) -> None:
        self._state, self._parameter, self._gathered, self._is_here = state, parameter, gathered, is_here
        self._last: weakref.ref[torch.Tensor] | None = None

    def copy(self) -> torch.Tensor:
        """The whole parameter, with a storage of its own size."""
        if not self._is_here:
            _refuse()
        if self._gathered is None:
            return whole_here(self._state, self._parameter)
        return self._gathered.whole(self._state, self._parameter).clone()

    def copy_for(self, state_dict: Mapping[str, Any], asked: torch.Tensor) -> torch.Tensor:
        """The same; a tied one is the tensor that stands in this state dict under another name already."""
        last = self._last() if self._last is not None else None
        if last is not None and any(value is last for value in state_dict.values()):
            return last
        copy = self.copy()
        if isinstance(asked, nn.Parameter):  # keep_vars
            copy = nn.Parameter(copy, asked.requires_grad)
        self._last = weakref.ref(copy)
        return copy

    def pickler(self) -> Callable[[int], Any]:
        """What a parameter is pickled by: as a plain one. A closure, since a copied parameter copies it."""

        def reduce(_: int) -> Any:
            trained = self._parameter.sharded_param.requires_grad
            return _rebuild_parameter, (self.copy(), trained, OrderedDict())

        return reduce


def _hook(wholes: Mapping[str, _Whole]) -> Callable[..., None]:
    def replace(_: nn.Module, state_dict: dict[str, Any], prefix: str, __: object) -> None:
        for name, whole in wholes.items():
            if prefix + name in state_dict:
                state_dict[prefix + name] = whole.copy_for(state_dict, state_dict[prefix + name])

    return replace


def _refuse(*_: object) -> None:
    raise BadInput(
        "read whole parameters on one rank",
        found="stage 3, in which each rank has a part of them",
        fix="Call engine.save_checkpoint(FOLDER) on every rank, then `python -m runtime checkpoint export "
        "FOLDER WEIGHTS`.",
    )
