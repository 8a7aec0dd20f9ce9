"""Fills shards with the weights that the model's modules draw: module by module, on rank 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from runtime.errors import BadInput
from runtime.train.parallel.dims import Axis
from runtime.train.weights.files import in_memory
from runtime.train.weights.slots import Slot, stream


def draw(model: nn.Module, slots: Sequence[Slot], ranks: Axis) -> None:
    """Draws what is needed: by each module's `reset_parameters`, then by the model's `_init_weights` if any.

    Collective. Children come before their parents, as in a plain build, so that the same seed gives the same
    weights. Rank 0 holds one module at a time, with those below it if it resets them.

    Raises:
        BadInput: a module cannot draw its weights; every rank raises it.
    """
    by_name = {name: slot for slot in slots for name in slot.names if slot.needed}
    to_fill = {id(p): by_name[name] for name, p in model.named_parameters() if name in by_name}
    # A convention of Hugging Face's models and of nanoGPT's.
    initialise: Callable[[nn.Module], None] | None = getattr(model, "_init_weights", None)
    for unit in list(_units(model, "", to_fill, initialise is not None)):
        with _whole(unit, ranks) as whole:
            if ranks.is_first:
                _reset(unit, initialise)
            for key, parameter in whole.items():
                if (slot := to_fill.pop(key, None)) is not None:  # a tied one is drawn again and not taken
                    source = in_memory(parameter) if ranks.is_first else None
                    stream(slot, source, parameter.dtype, ranks)


def _units(
    module: nn.Module, path: str, to_fill: Mapping[int, Slot], has_initialiser: bool
) -> Iterator[list[nn.Module]]:
    """Modules that draw their weights together: a module that resets its own and all below it, or one."""
    if _own_reset(module) is not None and any(id(p) in to_fill for p in module.parameters()):
        yield list(_children_first(module))
        return
    if any(id(p) in to_fill for p in module._parameters.values()):
        if not has_initialiser:
            kind = type(module).__name__.removeprefix("FSDP")
            raise BadInput(
                "draw the weights of a model that was built without",
                found=f"{path or 'the model'} ({kind}) has no reset_parameters",
                fix="Add reset_parameters to it, or pass weights=... to runtime.initialize.",
            )
        yield [module]
    for name, child in module.named_children():
        yield from _units(child, f"{path}.{name}" if path else name, to_fill, has_initialiser)


def _children_first(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        yield from _children_first(child)
    yield module


def _own_reset(module: nn.Module) -> Callable[[], None] | None:
    found: Callable[[], None] | None = getattr(module, "reset_parameters", None)
    return found or getattr(module, "_reset_parameters", None)


@torch.no_grad()
def _reset(unit: Sequence[nn.Module], initialise: Callable[[nn.Module], None] | None) -> None:
    for module in unit:
        if (reset := _own_reset(module)) is not None:
            reset()
        if initialise is not None:
            initialise(module)


@contextmanager
def _whole(unit: Sequence[nn.Module], ranks: Axis) -> Iterator[dict[int, nn.Parameter]]:
    """Whole parameters in the place of the unit's shards, by the identity of these; real on rank 0 only."""
    device = "cpu" if ranks.is_first else "meta"
    shards = [(module, dict(module._parameters)) for module in unit]
    whole: dict[int, nn.Parameter] = {}
    for module, parameters in shards:
        for name, p in parameters.items():
            if p is not None:
                if id(p) not in whole:
                    empty = torch.empty(p.shape, dtype=p.dtype, device=device)
                    whole[id(p)] = nn.Parameter(empty, p.requires_grad)
                module._parameters[name] = whole[id(p)]
    try:
        yield whole
    finally:
        for module, parameters in shards:
            module._parameters.update(parameters)
