"""Fills shards with weights that rank 0 reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from runtime.errors import BadInput
from runtime.train.parallel.dims import Axis
from runtime.train.weights.files import DTYPES, NAMES, Source, Weights, in_memory, open_weights
from runtime.train.weights.slots import Slot, agreed, stream


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
