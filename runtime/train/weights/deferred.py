"""Sharded initialisation: a model without weights is sharded first, and its shards are filled from rank 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode

from runtime.errors import BadInput
from runtime.train.checkpoint.agree import from_first
from runtime.train.offload.shards import like, local
from runtime.train.parallel.dims import Axis, shard_axis
from runtime.train.weights.files import DTYPES, NAMES, Source, Weights, in_memory, open_weights


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


def read(slots: Sequence[Slot], weights: Weights, ranks: Axis) -> None:
    """Fills every slot that the weights have. Collective.

    Raises:
        BadInput: one that is needed is missing, or has another shape; every rank raises it.
    """
    stored: Mapping[str, Source] = {}

    def look() -> list[str | None]:
        nonlocal stored
        if callable(weights):
            return [None for _ in slots]
        stored = open_weights(weights)
        found = [_stored(slot, stored) for slot in slots]
        _check_complete(slots, found, weights)
        return [NAMES[source.dtype] if source else None for source in found]

    for slot, name in zip(slots, agreed(look, ranks), strict=True):
        if callable(weights):
            _stream_called(slot, weights, ranks)
        elif name is not None:
            stream(slot, _stored(slot, stored), DTYPES[name], ranks)


def _stored(slot: Slot, stored: Mapping[str, Source]) -> Source | None:
    return next((stored[name] for name in slot.names if name in stored), None)


def _stream_called(slot: Slot, weights: Callable[[str], torch.Tensor], ranks: Axis) -> None:
    source: Source | None = None

    def look() -> bool:
        nonlocal source
        for name in slot.names:
            try:
                source = in_memory(weights(name))
                break
            except KeyError:
                continue
        _check_complete([slot], [source], weights)
        return source is not None

    if agreed(look, ranks):
        stream(slot, source, slot.shard.dtype, ranks)


def _check_complete(slots: Sequence[Slot], found: Sequence[Source | None], weights: Weights) -> None:
    faults = []
    for slot, source in zip(slots, found, strict=True):
        if source is None and slot.needed:
            faults.append(f"{slot.names[0]} is missing")
        elif source is not None and source.shape != tuple(slot.shape):
            faults.append(f"{slot.names[0]} has shape {source.shape}, not {tuple(slot.shape)}")
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise BadInput(
            f"fill the model from {'a callable' if callable(weights) else weights}",
            found="; ".join(faults[:5]) + more,
            fix="Give the weights of this model, or a callable that returns a tensor for a parameter's name.",
        )


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


SPAN_BYTES = 16 * 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A tensor to fill: its names, this rank's elements of it, and which of all the elements these are."""

    names: tuple[str, ...]
    shape: torch.Size
    shard: torch.Tensor
    start: int
    needed: bool


def slots_of(model: nn.Module, missing: frozenset[str], mesh: DeviceMesh) -> Iterator[Slot]:
    """Parameters and persistent buffers of a sharded model, and what else is `missing`; tied ones once."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, torch.Tensor] = {}
    persistent = model.state_dict(keep_vars=True)
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *((n, b) for n, b in model.named_buffers(remove_duplicate=False) if n in persistent or n in missing),
    ):
        tensors[id(tensor)] = tensor
        names.setdefault(id(tensor), []).append(name)
    for key, tensor in tensors.items():
        yield Slot(
            names=tuple(names[key]),
            shape=tensor.shape,
            shard=local(tensor).view(-1),
            start=_first_element(tensor, mesh),
            needed=any(name in missing for name in names[key]),
        )


def _first_element(tensor: torch.Tensor, mesh: DeviceMesh) -> int:
    """Where this rank's shard begins: FSDP2 cuts the first dimension as torch.chunk does."""
    if not isinstance(tensor, DTensor) or not tensor.ndim:
        return 0
    axis = shard_axis(mesh)
    rows = tensor.shape[0]
    each = -(-rows // axis.size)
    return min(axis.rank * each, rows) * (tensor.numel() // max(rows, 1))


def stream(slot: Slot, source: Source | None, dtype: torch.dtype, ranks: Axis) -> None:
    """Sends a tensor, travelling in `dtype`, from rank 0's `source` to all `ranks`; each keeps its shard."""
    total, step = slot.shape.numel(), SPAN_BYTES // dtype.itemsize
    device = slot.shard.device
    stop = slot.start + slot.shard.numel()
    for begin in range(0, total, step):
        end = min(begin + step, total)
        if source is not None:
            span = source.read(begin, end).to(device, dtype)
        else:
            span = torch.empty(end - begin, dtype=dtype, device=device)
        ranks.broadcast(span)
        low, high = max(begin, slot.start), min(end, stop)
        if low < high:
            slot.shard[low - slot.start : high - slot.start].copy_(span[low - begin : high - begin])


def agreed(act: Callable[[], T], ranks: Axis) -> T:
    """What rank 0 found (JSON), on every rank; what it refused is refused on every rank."""
    found: T | None = None
    fault = None
    if ranks.is_first:
        try:
            found = act()
        except BadInput as e:
            fault = (e.asked, e.found, e.fix)
    found, fault = from_first((found, fault), ranks.group)
    if fault is not None:
        asked, why, fix = fault
        raise BadInput(asked, found=why, fix=fix)
    return cast(T, found)
