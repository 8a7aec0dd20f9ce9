"""Whole parameters, gradients and optimizer states of a sharded model, under DeepSpeed's names.

Every rank calls these with the same parameters in the same order: what each has a part of is gathered.
Source: DeepSpeed 0.19.8, runtime/zero/partition_parameters.py and utils/tensor_fragment.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import Enum
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._dtensor_spec import DTensorSpec

from runtime.errors import BadInput
from runtime.train.offload.shards import local
from runtime.train.parallel.fsdp import holders, whole_gradient
from runtime.train.parallel.guarded import Whole, whole_of
from runtime.train.parallel.met import Guarded, part_of

logger = logging.getLogger("runtime")


class ZeroParamStatus(Enum):
    """Where a parameter of stage 3 is."""

    AVAILABLE = 1
    NOT_AVAILABLE = 2
    INFLIGHT = 3


class Partitioned(Guarded):
    """A parameter of stage 3, with what scripts ask of DeepSpeed's."""

    @property
    def ds_id(self) -> int:
        """A number of its own."""
        return int(self.__dict__["_number"])

    @property
    def ds_shape(self) -> torch.Size:
        """The whole parameter's shape."""
        return self.shape

    @property
    def ds_numel(self) -> int:
        """Elements of the whole parameter."""
        return self.numel()

    @property
    def ds_tensor(self) -> torch.Tensor:
        """This rank's part, in one dimension and in memory that the parameter has."""
        return local(self).view(-1)

    @property
    def ds_status(self) -> ZeroParamStatus:
        """AVAILABLE within `GatheredParameters`, else NOT_AVAILABLE."""
        within = "_apart" in self.__dict__
        return ZeroParamStatus.AVAILABLE if within else ZeroParamStatus.NOT_AVAILABLE


def number(parameters: Iterable[nn.Parameter]) -> None:
    """Gives the sharded parameters of stage 3 their numbers, by their order in the model."""
    for place, parameter in enumerate(parameters):
        held: Any = parameter
        if isinstance(held, Guarded):
            held.__class__ = Partitioned
            held.__dict__["_number"] = place


class GatheredParameters:
    """Whole parameters within it, in fp32; what rank `modifier_rank` makes of them is on all ranks after it.

    Without `modifier_rank` every rank keeps what it has made of them, up to stage 2; at stage 3 changes are
    lost, as with DeepSpeed, and a warning says so. Parameters that are not sharded yet are whole anyway.
    """

    def __init__(
        self,
        params: torch.Tensor | Iterable[torch.Tensor],
        modifier_rank: int | None = None,
        fwd_module: nn.Module | None = None,
        enabled: bool = True,
    ) -> None:
        listed = [params] if isinstance(params, torch.Tensor) else list(params)
        self._parameters = list({id(p): p for p in listed if p is not None}.values()) if enabled else []
        self._modifier = modifier_rank

    def __enter__(self) -> None:
        for parameter in self._parameters:
            if isinstance(parameter, Guarded) and hasattr(parameter, "_whole"):
                _gather(parameter)

    @torch.no_grad()
    def __exit__(self, kind: object, *_: object) -> None:
        for parameter in self._parameters:
            is_sharded = isinstance(parameter, Guarded) and "_apart" in parameter.__dict__
            whole = local(parameter)
            if self._modifier is not None and kind is None and dist.is_initialized():
                dist.broadcast(whole, self._modifier)
            if isinstance(parameter, Guarded) and is_sharded:
                _part(parameter)
                if kind is None:
                    self._keep(parameter, part_of(parameter, whole))

    def _keep(self, parameter: Guarded, part: torch.Tensor) -> None:
        if self._modifier is not None or not isinstance(parameter, Partitioned):
            local(parameter).copy_(part)
        elif not torch.equal(local(parameter), part):
            logger.warning(
                "a parameter of shape %s was changed in GatheredParameters without modifier_rank=...: "
                "at stage 3 the change is lost",
                list(parameter.shape),
            )


def _gather(parameter: Guarded) -> None:
    if "_apart" in parameter.__dict__:
        raise BadInput(
            "gather parameters (GatheredParameters)",
            found="one that is gathered already, by a block around this one",
            fix="Gather it once.",
        )
    if (known := whole_of(parameter)) is not None:
        known.rest()
    whole = parameter.full_tensor().detach().clone()
    spec = parameter._spec
    # The parameter itself becomes whole, and in its modules' hands there is a plain one of the same memory.
    parameter.__dict__["_apart"] = (parameter._local_tensor, spec)
    parameter._local_tensor = whole
    parameter._spec = DTensorSpec(spec.mesh, (Replicate(),) * spec.mesh.ndim, tensor_meta=spec.tensor_meta)
    plain = nn.Parameter(whole, parameter.requires_grad)
    plain.__dict__["_whole"] = whole_of(parameter)
    _put(parameter, plain)


def _part(parameter: Guarded) -> None:
    parameter._local_tensor, parameter._spec = parameter.__dict__.pop("_apart")
    _put(parameter, parameter)


def _put(parameter: Guarded, instead: torch.Tensor) -> None:
    known = whole_of(parameter)
    assert known is not None
    record = known.record
    for module, name in holders(record):
        if module._parameters.get(name) is not getattr(record, "_unsharded_param", record):
            module._parameters[name] = instead  # type: ignore[assignment]


def safe_get_full_fp32_param(param: torch.Tensor) -> torch.Tensor | None:
    """A copy of the whole parameter in fp32; None of what is not sharded. Collective."""
    known = _known(param)
    return _full(known.record.sharded_param) if known is not None else None


def safe_set_full_fp32_param(param: torch.Tensor, value: torch.Tensor) -> None:
    """Sets a parameter to a whole value, which every rank gives."""
    if (known := _known(param)) is not None:
        known.record.sharded_param.data = value


def safe_get_full_optimizer_state(param: torch.Tensor, optim_state_key: str) -> torch.Tensor | None:
    """A copy of an optimizer's whole state, as `exp_avg`; None where it has none yet. Collective."""
    state = _state(param, optim_state_key)
    return _full(state) if state is not None else None


def safe_set_full_optimizer_state(param: torch.Tensor, value: torch.Tensor, optim_state_key: str) -> None:
    """Sets an optimizer's state to a whole value, which every rank gives.

    Raises:
        BadInput: there is no such state, or it has another shape.
    """
    state = _state(param, optim_state_key)
    if state is None:
        raise _missing(f"set the optimizer's {optim_state_key}", "no such state of this parameter")
    with torch.no_grad():
        local(state).copy_(part_of(state, value) if isinstance(state, DTensor) else value)


def safe_get_full_grad(param: torch.Tensor) -> torch.Tensor | None:
    """A copy of the whole gradient; None where there is none. Collective.

    Averaged over ranks and micro-steps and without the loss scale, as the optimizer gets it before clipping.

    Raises:
        BadInput: this rank's gradient waits for its step's last micro-step, which reduces it.
    """
    gradient, factor = _gradient(param, "read a gradient")
    return _full(gradient) * factor if gradient is not None else None


def safe_set_full_grad(param: torch.Tensor, value: torch.Tensor) -> None:
    """Sets the gradient to a whole value, which every rank gives, in the sense of `safe_get_full_grad`.

    Raises:
        BadInput: there is no gradient that could be set.
    """
    gradient, factor = _gradient(param, "set a gradient")
    if gradient is None:
        raise _missing("set a gradient", "a parameter without one")
    with torch.no_grad():
        whole = value / factor
        local(gradient).copy_(part_of(gradient, whole) if isinstance(gradient, DTensor) else whole)


def safe_get_local_fp32_param(param: torch.Tensor) -> torch.Tensor | None:
    """This rank's part of a parameter in fp32; None of what is not sharded."""
    known = _known(param)
    return local(known.record.sharded_param).clone() if known is not None else None


def safe_set_local_fp32_param(param: torch.Tensor, value: torch.Tensor) -> None:
    """Sets this rank's part of a parameter."""
    if (known := _known(param)) is not None:
        local(known.record.sharded_param).copy_(value)


def safe_get_local_optimizer_state(param: torch.Tensor, optim_state_key: str) -> torch.Tensor | None:
    """This rank's part of an optimizer's state; None where it has none yet."""
    state = _state(param, optim_state_key)
    return local(state).clone() if state is not None else None


def safe_set_local_optimizer_state(param: torch.Tensor, value: torch.Tensor, optim_state_key: str) -> None:
    """Sets this rank's part of an optimizer's state.

    Raises:
        BadInput: there is no such state.
    """
    state = _state(param, optim_state_key)
    if state is None:
        raise _missing(f"set the optimizer's {optim_state_key}", "no such state of this parameter")
    local(state).copy_(value)


def safe_get_local_grad(param: torch.Tensor) -> torch.Tensor | None:
    """This rank's part of the gradient, in the sense of `safe_get_full_grad`."""
    gradient, factor = _gradient(param, "read a gradient")
    return local(gradient) * factor if gradient is not None else None


def safe_set_local_grad(param: torch.Tensor, value: torch.Tensor) -> None:
    """Sets this rank's part of the gradient, in the sense of `safe_get_full_grad`.

    Raises:
        BadInput: there is no gradient that could be set.
    """
    gradient, factor = _gradient(param, "set a gradient")
    if gradient is None:
        raise _missing("set a gradient", "a parameter without one")
    local(gradient).copy_(value / factor)


def _known(param: torch.Tensor) -> Whole | None:
    return whole_of(param) if isinstance(param, nn.Parameter | Guarded) else None


def _full(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.detach()
    return (whole.full_tensor() if isinstance(whole, DTensor) else whole).clone()


def _state(param: torch.Tensor, key: str) -> torch.Tensor | None:
    known = _known(param)
    optimizer = known.training.optimizer() if known is not None and known.training is not None else None
    if known is None or optimizer is None:
        return None
    if key == "fp32_param":
        found: torch.Tensor = known.record.sharded_param
        return found
    states: dict[str, Any] = optimizer.state.get(known.record.sharded_param, {})
    return states.get(key)


def _gradient(param: torch.Tensor, asked: str) -> tuple[torch.Tensor | None, float]:
    known = _known(param)
    if known is None or known.training is None:
        return param.grad, 1.0
    if known.record.sharded_param.grad is None and whole_gradient(known.record) is not None:
        raise BadInput(
            asked,
            found="micro-steps of an optimizer step that is not at its end; ranks have each their own",
            fix="Ask after the backward of its last micro-step, before engine.step().",
        )
    return known.record.sharded_param.grad, known.training.averaging()


def _missing(asked: str, found: str) -> BadInput:
    return BadInput(asked, found=found, fix="Ask after a backward, or after a step.")
