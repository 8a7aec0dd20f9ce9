"""The one door to what FSDP2 keeps of a unit's parameters and has no public name for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from runtime.train.offload.shards import local

# torch's FSDPParamGroup and FSDPParam, which it exports nowhere.
UnitState = Any
Sharded = Any


def units(model: nn.Module) -> list[FSDPModule]:
    """The modules whose parameters travel as one."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def drop_gathered(model: nn.Module) -> None:
    """Puts the shards in the place of whole parameters that a forward or an accumulation has left there."""
    for unit in units(model):
        unit.reshard()


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


def follow_forwards(
    model: nn.Module, end: Callable[[], None], *, compare: Callable[[], None] | None = None
) -> Callable[[nn.Module], None]:
    """Before a forward ends what was cut off; after one without gradients puts the shards back.

    After one with gradients and without a backward they come back with `train()`. The hooks keep the model
    alone alive, not its engine.

    Args:
        end: ends what was cut off.
        compare: what ranks compare after a forward of the whole model without gradients.

    Returns:
        What is done after a forward of a unit.
    """

    def before(_: nn.Module, __: object) -> None:
        end()

    def after(unit: nn.Module, *_: object) -> None:
        if torch.is_grad_enabled() or in_backward() or not at_rest(unit):
            return
        forget_forwards(model)
        put_shards_back(model)
        if compare is not None and unit is model:
            compare()

    for unit in units(model):
        cast(nn.Module, unit).register_forward_pre_hook(before, prepend=True)
        cast(nn.Module, unit).register_forward_hook(after)
    # A partial is copied with its module, as a closure would not be.
    model.train = partial(_train, model)  # type: ignore[method-assign]
    return after


def _train(model: nn.Module, mode: bool = True) -> nn.Module:
    type(model).train(model, mode)
    if mode:
        put_shards_back(model)
    return model


def end_backward(model: nn.Module) -> None:
    """Ends a backward that an exception cut off, as FSDP2 ends a whole one. Collective, if there is one.

    FSDP2 would take the next backward for a part of it, and reduce that one's gradients by halves.
    """
    if is_cut_off(model):
        _state(model)._root_post_backward_final_callback()


def is_cut_off(model: nn.Module) -> bool:
    """Whether a backward has begun and not ended, and this is not a part of it."""
    return bool(_state(model)._state_ctx.post_backward_final_callback_queued) and not in_backward()


def leave_forward(model: nn.Module) -> None:
    """Makes units that an exception has left within a forward rest again."""
    context = _state(model)._state_ctx
    context.iter_forward_root = None
    forget_forwards(model)
    for state in context.all_states:
        for one in (state, state._fsdp_param_group):
            if one is not None and one._training_state.name == "FORWARD":
                one._training_state = type(one._training_state).IDLE


def forget_forwards(model: nn.Module) -> None:
    """Drops FSDP2's notes of forwards that no backward follows; it prefetches by them.

    They would grow with each forward of an evaluation, and after one that was cut off name other units.
    """
    _state(model)._comm_ctx.post_forward_order.clear()
    for state in _state(model)._state_ctx.all_states:
        if state._fsdp_param_group is not None:
            state._fsdp_param_group._post_forward_indices.clear()


def put_shards_back(model: nn.Module) -> None:
    """Makes the module's parameters the shards again, unless gradients wait in the whole ones.

    What a script then changes in place is what is trained; in whole parameters it would be lost.
    """
    if all(whole_gradient(parameter) is None for parameter in sharded(model)):
        drop_gathered(model)


def shard_now(parameter: Sharded) -> torch.Tensor:
    """This rank's shard as it is gathered: flat, padded, in the compute type, on the device."""
    if parameter.sharded_state.name == "UNSHARDED":  # a forward has left the whole one there
        held: torch.Tensor = parameter._sharded_param_data
        return held.to(parameter.device, parameter.param_dtype or held.dtype)
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


def in_backward() -> bool:
    """Whether this thread is within a backward."""
    return bool(torch._C._current_graph_task_id() != -1)


def _state(unit: nn.Module) -> Any:
    return cast(FSDPModule, unit)._get_fsdp_state()
