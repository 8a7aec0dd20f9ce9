"""Sharded initialisation: a model without weights is sharded first, and its shards are filled from rank 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.overrides import TorchFunctionMode

from runtime.errors import BadInput
from runtime.train.offload.shards import like, local
from runtime.train.parallel.dims import Axis
from runtime.train.weights.draw import draw
from runtime.train.weights.files import Weights
from runtime.train.weights.read import read
from runtime.train.weights.slots import slots_of


class _EmptyOnMeta(TorchFunctionMode):
    """torch.empty, from which nearly every module makes its parameters, takes no memory."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        where = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **where})


@contextmanager
def without_weights() -> Iterator[None]:
    """Within it, modules are built with parameters that have a shape and no memory.

    Buffers are real, but for those that begin as torch.empty: these must be among the weights.
    """
    register = nn.Module.register_parameter

    def without(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            kept = parameter.__dict__
            parameter = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
            parameter.__dict__.update(kept)
        register(module, name, parameter)

    nn.Module.register_parameter = without  # type: ignore[method-assign, assignment]
    try:
        with _EmptyOnMeta():
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def names_on_meta(model: nn.Module) -> frozenset[str]:
    """Parameters and buffers without memory; a tied parameter by each of its names."""
    parameters = model.named_parameters(remove_duplicate=False)
    return frozenset(
        name
        for named in (parameters, model.named_buffers(remove_duplicate=False))
        for name, tensor in named
        if tensor.is_meta
    )


def fill(
    model: nn.Module,
    missing: frozenset[str],
    weights: Weights | None,
    mesh: DeviceMesh,
    device: torch.device,
    ranks: Axis,
) -> None:
    """Gives a sharded model memory on the device and its values. Collective.

    Args:
        missing: names of what had no memory before it was sharded.
        weights: where rank 0 reads them; where None, modules draw theirs (`reset_parameters`), as they would
            have in a plain build after the same seed.

    Raises:
        BadInput: weights are missing or of another shape; every rank raises it.
    """
    _check_buffers(model, missing, weights)
    _materialise(model, device)
    slots = list(slots_of(model, missing, mesh))
    if weights is not None:
        read(slots, weights, ranks)
    elif missing:
        draw(model, slots, ranks)


def _materialise(model: nn.Module, device: torch.device) -> None:
    fresh: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.is_meta:
                continue
            if id(parameter) not in fresh:  # tied ones stay tied
                fresh[id(parameter)] = _empty(parameter, device)
            module._parameters[name] = fresh[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.empty_like(buffer, device=device)
    if fresh:
        model._apply(lambda tensor: tensor)  # type: ignore[no-untyped-call]  # FSDP2 looks at them anew


def _empty(parameter: nn.Parameter, device: torch.device) -> nn.Parameter:
    shard = torch.empty_like(local(parameter), device=device)
    return nn.Parameter(like(parameter, shard), parameter.requires_grad)


def _check_buffers(model: nn.Module, missing: frozenset[str], weights: Weights | None) -> None:
    buffers = [name for name, _ in model.named_buffers() if name in missing]
    if buffers and weights is None:
        raise BadInput(
            "give a model memory that was built without",
            found=f"buffer {buffers[0]} has no value, and nothing says which",
            fix="Build the model in `with runtime.without_weights():`, which keeps buffers, or pass weights.",
        )
