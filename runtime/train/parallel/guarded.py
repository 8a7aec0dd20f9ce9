"""Parameters in a script's hands are shards: what is set whole takes effect, what is read is whole.

Where reading would silently give this rank's part, an error says what to call instead: a number made of
shards (`p.norm().item()`), and pickles of tensors that are made of parameters (`p.data`, optimizer states).
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from runtime.errors import BadInput
from runtime.train.offload.shards import like, local
from runtime.train.parallel.fsdp import sharded

_ours: weakref.WeakSet[DeviceMesh] = weakref.WeakSet()


def guard(model: nn.Module, optimizer: torch.optim.Optimizer, mesh: DeviceMesh) -> None:
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
    optimizer.register_load_state_dict_post_hook(_cut_states)


class Guarded(DTensor):
    """A parameter's shard, into which a whole tensor can be copied."""

    @property
    def data(self) -> torch.Tensor:
        alias: torch.Tensor = DTensor.data.__get__(self)  # type: ignore[attr-defined]
        if type(alias) is DTensor:
            alias.__class__ = Guarded
        return alias

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        with torch.no_grad():
            local(self).copy_(_part_of(self, value))

    def copy_(self, value: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if not isinstance(value, DTensor) and value.shape == self.shape:
            value = like(self, _part_of(self, value))
        return super().copy_(value, non_blocking)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """A copy is no parameter of the model: it is pickled as what it is, not as what the model has."""
        copied = copy.deepcopy(self.detach(), memo).requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied


def _part_of(parameter: DTensor, value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a whole tensor: FSDP2 cuts the first dimension as torch.chunk does."""
    if isinstance(value, DTensor) and value.placements == parameter.placements:
        return local(value)
    if isinstance(value, DTensor) or value.shape != parameter.shape:
        raise BadInput(
            f"set a parameter of shape {list(parameter.shape)}",
            found=f"a tensor of shape {list(value.shape)}",
            fix="Give a whole tensor of the parameter's shape, on every rank.",
        )
    for dim, placement in enumerate(parameter.placements):
        if isinstance(placement, Shard):
            parts = value.chunk(parameter.device_mesh.size(dim))
            rank = parameter.device_mesh.get_local_rank(dim)
            value = parts[rank] if rank < len(parts) else value[:0]
    return value.to(local(parameter).device)


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
            state[prefix + name] = like(parameter, _part_of(parameter, value.to(parameter.dtype)))


def _cut_states(optimizer: torch.optim.Optimizer) -> None:
    for parameter, states in list(optimizer.state.items()):
        for kind, value in states.items():
            is_whole = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if isinstance(parameter, DTensor) and is_whole and not isinstance(value, DTensor):
                states[kind] = like(parameter, _part_of(parameter, value).clone())


def _is_whole(tensor: DTensor) -> bool:
    """Whether this rank has all of it."""
    mesh = tensor.device_mesh
    cut = [mesh.size(dim) > 1 for dim, one in enumerate(tensor.placements) if not one.is_replicate()]
    return not any(cut)


def _number(_: object, arguments: tuple[Any, ...], __: object) -> Any:
    tensor = arguments[0]
    if tensor.device_mesh in _ours and not _is_whole(tensor):
        _refuse("read a number that is made of parameters", "Take p.full_tensor() on every rank")
    return local(tensor).item()


def _pickle(tensor: DTensor, protocol: Any) -> Any:
    if tensor.device_mesh not in _ours:
        return torch.Tensor.__reduce_ex__(tensor, protocol)  # type: ignore[no-untyped-call]
    if not _is_whole(tensor):
        _refuse("save what is made of parameters", "Call engine.save_checkpoint(FOLDER) on every rank")
    return local(tensor).clone().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def _refuse(asked: str, fix: str) -> None:
    raise BadInput(
        asked,
        found="a tensor of which each rank has a part, here this rank's",
        fix=f"{fix}, or up to stage 2 take engine.state_dict(), which holds whole tensors.",
    )
