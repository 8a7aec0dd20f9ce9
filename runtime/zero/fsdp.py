"""The one door to what FSDP2 keeps of a unit's parameters and has no public name for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from runtime.zero.offload.shards import local
from runtime.zero.shard import drop_gathered, units

# torch's FSDPParamGroup and FSDPParam, which it exports nowhere.
UnitState = Any
Sharded = Any


def unit_states(model: nn.Module) -> list[UnitState]:
    """What FSDP2 keeps of each unit that has parameters."""
    states = [unit._get_fsdp_state()._fsdp_param_group for unit in units(model)]
    return [state for state in states if state is not None]


def sharded(model: nn.Module) -> list[Sharded]:
    """Every parameter with its two forms: the shard, which is optimized, and the whole, which computes."""
    return [parameter for state in unit_states(model) for parameter in state.fsdp_params]


def holders(parameter: Sharded) -> Iterator[tuple[nn.Module, str]]:
    """The modules that hold a parameter, and under which name; several where it is tied."""
    info = parameter._module_info
    yield info.module, info.param_name
    yield from zip(info.shared_modules, info.shared_param_names, strict=True)


def whole_gradient(parameter: Sharded) -> torch.Tensor | None:
    """This rank's gradient that waits to be reduced, if any."""
    waiting: torch.Tensor | None = parameter.unsharded_accumulated_grad
    if waiting is not None:
        return waiting
    gradient: torch.Tensor | None = getattr(getattr(parameter, "_unsharded_param", None), "grad", None)
    return gradient


def settle_root(model: nn.Module) -> None:
    """Makes the model FSDP2's root now, not at the first forward, which may be that of a part."""
    _state(model)._lazy_init()


def reduce_waiting(model: nn.Module) -> None:
    """Reduces gradients that were accumulated without it. Collective, if there are any."""
    if all(whole_gradient(parameter) is None for parameter in sharded(model)):
        return
    for unit in units(model):
        unit.set_requires_gradient_sync(True, recurse=False)
    # What FSDP2 does at the end of a backward for units that it has not come to.
    _state(model)._root_post_backward_final_callback()


def end_backward(model: nn.Module) -> None:
    """Ends a backward that an exception cut off, as FSDP2 ends a whole one. Collective, if there is one.

    FSDP2 would take the next backward for a part of it, and reduce that one's gradients by halves.
    """
    root = _state(model)
    if root._state_ctx.post_backward_final_callback_queued and not _in_backward():
        root._root_post_backward_final_callback()


def leave_forward(model: nn.Module) -> None:
    """Makes units that an exception has left within a forward rest again."""
    context = _state(model)._state_ctx
    context.iter_forward_root = None
    for state in context.all_states:
        for one in (state, state._fsdp_param_group):
            if one is not None and one._training_state.name == "FORWARD":
                one._training_state = type(one._training_state).IDLE


def put_shards_back(model: nn.Module) -> None:
    """Makes the module's parameters the shards again, unless gradients wait in the whole ones.

    What a script then changes in place is what is trained; in whole parameters it would be lost.
    """
    if all(whole_gradient(parameter) is None for parameter in sharded(model)):
        drop_gathered(model)


def shard_now(parameter: Sharded) -> torch.Tensor:
    """This rank's shard as it is gathered: flat, padded, in the compute type, on the device."""
    inputs: list[torch.Tensor] = parameter.all_gather_inputs
    return inputs[0]


def whole_here(state: UnitState, parameter: Sharded) -> torch.Tensor:
    """A copy of a parameter that no other rank has a part of, as the module computes with it."""
    if state.is_unsharded:
        whole: torch.Tensor = parameter._unsharded_param.detach()
        return whole.clone()
    shard = local(parameter.sharded_param)
    return shard.to(state.device, parameter.param_dtype or shard.dtype, copy=True)


def at_rest(module: nn.Module) -> bool:
    """Whether a unit's call is neither within another one's forward nor part of a backward."""
    state = _state(module)
    inside = state._state_ctx.iter_forward_root is not None
    return not inside and state._training_state.name == "IDLE"


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _state(unit: nn.Module) -> Any:
    return cast(FSDPModule, unit)._get_fsdp_state()
