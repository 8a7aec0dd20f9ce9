"""Parameters in a script's hands are shards: what is set whole takes effect, what is read is whole.

Where reading would silently give this rank's part, an error says what to call instead: a number made of
shards (`p.norm().item()`), and pickles of tensors that are made of parameters (`p.data`, optimizer states).
State dicts and pickles of parameters hold whole, plain tensors in stages 0 to 2 and on one rank; in stage 3
no rank has whole ones, and whoever asks is told what to call.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import nn
from torch._utils import _rebuild_parameter
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput
from runtime.train.offload.shards import like, local
from runtime.train.parallel.copies import follow_copies
from runtime.train.parallel.fsdp import (
    Sharded,
    UnitState,
    holders,
    sharded,
    unit_states,
    whole_gradient,
    whole_here,
)
from runtime.train.parallel.gathered import Gathered
from runtime.train.parallel.met import Guarded, is_whole, know, part_of

_ours: weakref.WeakSet[DeviceMesh] = weakref.WeakSet()
_wholes: weakref.WeakSet[Whole] = weakref.WeakSet()
_REPLACING = "resize_token_embeddings"  # of Hugging Face's models
GetWhole = Callable[[], torch.Tensor]


def guard(model: nn.Module, optimizer: torch.optim.Optimizer | None, mesh: DeviceMesh) -> None:
    """Guards a sharded model's parameters, and what a script makes of them."""
    _ours.add(mesh)
    # DTensor's own answers are this rank's part, without a word (torch 2.13). Other meshes keep them.
    handlers: dict[Any, Any] = DTensor._op_dispatcher._custom_op_handlers
    handlers[torch.ops.aten._local_scalar_dense.default] = _number
    DTensor.__reduce_ex__ = _pickle  # type: ignore[assignment, method-assign]
    for parameter in sharded(model):
        parameter.sharded_param.__class__ = Guarded
    for module in model.modules():
        module._register_load_state_dict_pre_hook(_cut, with_module=True)  # type: ignore[no-untyped-call]
    if optimizer is not None:
        optimizer.register_load_state_dict_post_hook(_cut_states)


def _cut(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *_: object) -> None:
    """Before a module loads a state dict: of whole tensors the parts that are this rank's."""
    for name, parameter in module._parameters.items():
        value = state.get(prefix + name)
        if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor):
            continue
        if metadata.get("assign_to_params_buffers"):
            raise BadInput(
                "load a state dict with assign=True",
                found="a sharded model, whose optimizer would go on with the parameters of before",
                fix="Leave assign=True out: the values are copied.",
            )
        if not isinstance(value, DTensor) and value.shape == parameter.shape:
            state[prefix + name] = like(parameter, part_of(parameter, value.to(parameter.dtype)))


def _cut_states(optimizer: torch.optim.Optimizer) -> None:
    for parameter, states in list(optimizer.state.items()):
        for kind, value in states.items():
            is_whole = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if isinstance(parameter, DTensor) and is_whole and not isinstance(value, DTensor):
                states[kind] = like(parameter, part_of(parameter, value).clone())


def _number(_: object, arguments: tuple[Any, ...], __: object) -> Any:
    tensor = arguments[0]
    if tensor.device_mesh in _ours and not is_whole(tensor):
        _refuse("read a number that is made of parameters", "Take p.full_tensor() on every rank")
    return local(tensor).item()


def _pickle(tensor: DTensor, protocol: Any) -> Any:
    if tensor.device_mesh not in _ours:
        return torch.Tensor.__reduce_ex__(tensor, protocol)  # type: ignore[no-untyped-call]
    if not is_whole(tensor):
        _refuse("save what is made of parameters", "Call engine.save_checkpoint(FOLDER) on every rank")
    return local(tensor).clone().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def _refuse(asked: str, fix: str) -> None:
    raise BadInput(
        asked,
        found="a tensor of which each rank has a part, here this rank's",
        fix=f"{fix}, or up to stage 2 take engine.state_dict(), which holds whole tensors.",
    )


def give_whole(
    model: nn.Module, gathered: Gathered | None, *, is_here: bool, training: Trained | None = None
) -> None:
    """Makes state dicts and pickles of the model's parameters hold whole tensors in the compute type, copies.

    Args:
        gathered: what stages 1 and 2 gather; None where a rank's shards are whole.
        is_here: whether every rank has all parameters; where not, asking is refused.
        training: what trains the model, for those who ask for gradients and the optimizer's states.
    """
    held: dict[nn.Module, dict[str, Whole]] = defaultdict(dict)
    for state in unit_states(model):
        for parameter in state.fsdp_params:
            one = Whole(state, parameter, gathered, is_here, training)
            _wholes.add(one)
            parameter.sharded_param.__reduce_ex__ = one.pickler()
            know(parameter.sharded_param, one)
            for module, name in holders(parameter):
                held[module][name] = one
    follow_copies(model, held)
    for module in model.modules():
        if callable(getattr(module, _REPLACING, None)):
            setattr(module, _REPLACING, _refuse_replacing)
    for module, wholes in held.items():
        if is_here:
            module.register_state_dict_post_hook(_hook(wholes))  # type: ignore[no-untyped-call]
        else:
            module.register_state_dict_pre_hook(_refuse_whole)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What trains a model: its optimizer, and what a summed gradient is multiplied by to be the mean.

    A model keeps neither alive.
    """

    optimizer: Callable[[], torch.optim.Optimizer | None]
    averaging: Callable[[], float]


def whole_of(parameter: torch.Tensor) -> Whole | None:
    """What is known of a parameter of a sharded model, whichever of its forms this is."""
    known = parameter.__dict__.get("_whole")
    if isinstance(known, Whole):
        return known
    return next((one for one in _wholes if getattr(one.record, "_unsharded_param", None) is parameter), None)


class Whole:
    """A parameter that is given out whole."""

    def __init__(
        self,
        state: UnitState,
        record: Sharded,
        gathered: Gathered | None,
        is_here: bool,
        training: Trained | None,
    ) -> None:
        self._state, self.record, self._gathered, self.is_here = state, record, gathered, is_here
        self.training = training
        self._last: weakref.ref[torch.Tensor] | None = None

    def copy(self) -> torch.Tensor:
        """The whole parameter, with a storage of its own size."""
        if not self.is_here:
            _refuse_whole()
        if self._gathered is None:
            return whole_here(self._state, self.record)
        return self._gathered.whole(self._state, self.record).clone()

    def rest(self) -> None:
        """Puts shards in the place of what a forward has left whole, unless gradients wait there."""
        if all(whole_gradient(record) is None for record in self._state.fsdp_params):
            self._state.reshard()

    def value(self) -> torch.Tensor:
        """The whole parameter in the type of its shards, which are exact where they are whole.

        Raises:
            BadInput: this rank does not have it.
        """
        shard = self.record.sharded_param
        if is_whole(shard):
            return local(shard)
        if not self.is_here:
            _refuse("compute with parameters outside of a forward", "Take p.full_tensor() on every rank")
        return self.copy().to(shard.device, shard.dtype)

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
            trained = self.record.sharded_param.requires_grad
            return _rebuild_parameter, (self.copy(), trained, OrderedDict())

        return reduce


def _hook(wholes: Mapping[str, Whole]) -> Callable[..., None]:
    def replace(_: nn.Module, state_dict: dict[str, Any], prefix: str, __: object) -> None:
        for name, whole in wholes.items():
            if prefix + name in state_dict:
                state_dict[prefix + name] = whole.copy_for(state_dict, state_dict[prefix + name])

    return replace


def _refuse_replacing(*_: object, **__: object) -> NoReturn:
    raise BadInput(
        f"call {_REPLACING}",
        found="a sharded model, whose optimizer would go on with the parameters of before",
        fix="Call it before runtime.initialize, or on a plain model that loads an exported checkpoint.",
    )


def refuse_later_ones(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Says so where a parameter of the model has a gradient that nobody will use.

    Raises:
        BadInput: one that is trained was put into the model after it was sharded.
    """
    late = next((p for p in parameters if p.grad is not None and not isinstance(p, DTensor)), None)
    if late is None:
        return
    name = next(name for name, parameter in model.named_parameters() if parameter is late)
    raise BadInput(
        "update weights",
        found=f"parameter {name} came into the model after it was sharded, and is in no optimizer",
        fix="Build the whole model before runtime.initialize.",
    )


def _refuse_whole(*_: object) -> None:
    raise BadInput(
        "read whole parameters on one rank",
        found="stage 3, in which each rank has a part of them",
        fix="Call engine.save_checkpoint(FOLDER) on every rank, then `python -m runtime checkpoint export "
        "FOLDER WEIGHTS`.",
    )
