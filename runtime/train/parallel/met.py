"""A parameter's shard in a script's hands, where it meets whole tensors: averages of weights, masks, noise.

DTensor refuses to compute with both. What changes shards takes their parts of the whole tensors; else whole
parameters take the place of shards, where the rank has them. What neither gives is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.utils._pytree import tree_flatten, tree_unflatten

from runtime.errors import BadInput
from runtime.train.offload.shards import like, local


class HasWhole(Protocol):
    """Who knows the whole tensor of which this rank has a part."""

    def value(self) -> torch.Tensor:
        """The whole tensor, in the type of the part; BadInput where this rank does not have it."""
        ...


class Guarded(DTensor):
    """A parameter's shard, which can be met with whole tensors."""

    _whole: HasWhole

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _changes_whole(func, args):
            return _meet(func, args, kwargs or {}, None)
        try:
            found = super().__torch_dispatch__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        except (AssertionError, RuntimeError) as error:
            told = isinstance(error, AssertionError | NotImplementedError)
            if told or any(text in str(error) for text in _DTENSORS):
                return _meet(func, args, kwargs or {}, error)
            raise
        return _followed(found, func, args, kwargs or {}) if type(found) is DTensor else found

    @property
    def data(self) -> torch.Tensor:
        return self._alias(DTensor.data.__get__(self))  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        with torch.no_grad():
            local(self).copy_(part_of(self, value))

    def copy_(self, value: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if not isinstance(value, DTensor) and value.shape == self.shape:
            value = like(self, part_of(self, value))
        return super().copy_(value, non_blocking)

    def detach(self) -> torch.Tensor:
        return self._alias(super().detach())

    def _alias(self, alias: torch.Tensor) -> torch.Tensor:
        """An alias knows of which parameter it is one."""
        return know(alias, self._whole) if hasattr(self, "_whole") else alias

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """A copy is no parameter of the model: it is pickled as what it is, not as what the model has."""
        copied = like(self, local(self).clone()).requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied


def know(alias: torch.Tensor, whole: HasWhole) -> torch.Tensor:
    """Makes a tensor one that knows its whole."""
    if isinstance(alias, DTensor):
        alias.__class__ = Guarded
        alias.__dict__["_whole"] = whole
    return alias


class _View:
    """The same view of the whole as was taken of the part."""

    def __init__(self, view: Callable[[torch.Tensor], torch.Tensor], base: HasWhole) -> None:
        self._view, self._base = view, base

    def value(self) -> torch.Tensor:
        return self._view(self._base.value())


def _followed(found: DTensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """What was made of a shard: views know their whole, the rest that it is one, and numbers are plain."""
    base = args[0] if args else None
    alias = func._schema.returns[0].alias_info
    is_for_states = func._schema.name.endswith("_like") or ".new_" in func.name()
    if not isinstance(base, Guarded) or is_for_states or (alias is not None and alias.is_write):
        return found
    is_graded = torch.is_grad_enabled() and base.requires_grad
    if base.ndim == 0 and alias is None and not is_graded:
        return local(found)
    found.__class__ = Guarded
    if alias is not None and not is_graded and hasattr(base, "_whole"):
        found.__dict__["_whole"] = _View(lambda whole: func(whole, *args[1:], **kwargs), base._whole)
    return found


def part_of(parameter: DTensor, value: torch.Tensor) -> torch.Tensor:
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


def is_whole(tensor: DTensor) -> bool:
    """Whether this rank has all of it."""
    mesh = tensor.device_mesh
    cut = [mesh.size(dim) > 1 for dim, one in enumerate(tensor.placements) if not one.is_replicate()]
    return not any(cut)


# With these DTensor says that it cannot do what is asked of shards and whole tensors together.
_DTENSORS = ("mixed torch.Tensor and DTensor", "Sharding propagation failed", "does not have a sharding")


def _meet(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception | None) -> Any:
    """What DTensor refuses, done with whole tensors; what changes shards, with their parts of these.

    Raises:
        BadInput: gradients would have to find their way, or this rank does not have what is whole.
    """
    flat, form = tree_flatten((args, kwargs))
    changed, _ = tree_flatten(_changed(func, args, kwargs))
    shards = [one for one in flat if isinstance(one, DTensor)]
    if torch.is_grad_enabled() and any(one.requires_grad for one in shards):
        raise _ungraded(func) from error
    if any(isinstance(one, DTensor) for one in changed):
        flat = [_spread(one, shards) for one in flat]
    else:
        flat = [_gathered(one, func, error) if isinstance(one, DTensor) else one for one in flat]
    args, kwargs = tree_unflatten(flat, form)
    try:
        return func(*args, **kwargs)
    except RuntimeError as again:
        if any(text in str(again) for text in _DTENSORS):
            raise mixing(func) from again
        raise


def _changes_whole(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a whole tensor is to be changed in place; of one element, DTensor would change a copy of it."""
    first = args[0] if args else None
    if isinstance(first, list | tuple) and first:
        first = first[0]
    is_whole_one = isinstance(first, torch.Tensor) and not isinstance(first, DTensor)
    return is_whole_one and bool(func._schema.is_mutable)


def _changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation changes in place."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[place] if place < len(args) else kwargs.get(argument.name))
    return found


def _spread(value: Any, shards: list[DTensor]) -> Any:
    """A whole tensor as this rank's part of it, or else as one that all ranks have."""
    if not isinstance(value, torch.Tensor):
        return value
    if isinstance(value, DTensor):
        return like(value, value._local_tensor)
    for shard in shards:
        if shard.shape == value.shape:
            return like(shard, part_of(shard, value))
    mesh = shards[0].device_mesh
    everywhere = [Replicate()] * mesh.ndim
    return DTensor.from_local(value.to(mesh.device_type), mesh, everywhere, run_check=False)


def _gathered(tensor: DTensor, func: Any, error: Exception | None) -> torch.Tensor:
    if isinstance(tensor, Guarded) and hasattr(tensor, "_whole"):
        return tensor._whole.value()
    if is_whole(tensor):
        return local(tensor)
    raise mixing(func) from error


def mixing(func: Any) -> BadInput:
    """What to call instead of computing with a part and a whole."""
    return BadInput(
        f"compute with what is made of parameters ({func})",
        found="a tensor of which each rank has a part, here this rank's, and a whole one",
        fix="Take .full_tensor() of the former, on every rank.",
    )


def _ungraded(func: Any) -> BadInput:
    return BadInput(
        f"compute with a parameter that is trained ({func})",
        found="no forward of the model is under way, and each rank has a part of the parameter",
        fix="Do it in the model's forward or in a method of the model, and let "
        "engine.follow_method(module, 'METHOD') have whole parameters there; without gradients use "
        "torch.no_grad().",
    )
