"""The smallest change of a configuration that makes a training fit. Pure: every combination is tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from runtime.train.estimate.model import Model
from runtime.train.estimate.states import Settings, estimate

# For the driver's context, NCCL's buffers and the allocator's fragments: an assumption, not a measurement.
RESERVE = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Settings that fit, the kinds of change that lead there, and the keys to write."""

    settings: Settings
    changes: tuple[str, ...]
    keys: Mapping[str, Any]


def fits(model: Model, settings: Settings, device_bytes: int) -> bool:
    """Whether a rank's share stays below its device's memory less the reserve."""
    return estimate(model, settings).device.total <= device_bytes * (1 - RESERVE)


def advise(model: Model, settings: Settings, device_bytes: int) -> Advice | None:
    """Fewest kinds of change first; among as many, those that come first in the order of `_options`.

    None where no combination fits.
    """
    found = [made for made in _combinations(settings) if fits(model, made.settings, device_bytes)]
    return min(found, key=_cost, default=None)


_ORDER = (
    "bf16",
    "stage",
    "activation_checkpointing",
    "offload_optimizer",
    "offload_param",
    "train_micro_batch_size_per_gpu",
)


def _cost(advice: Advice) -> tuple[int, list[int], int, int]:
    places = [_ORDER.index(change) for change in advice.changes]
    return len(places), places, advice.settings.stage, -advice.settings.micro_batch


def _combinations(now: Settings) -> Iterator[Advice]:
    """Every setting that memory can be saved with, from `now` on; what is on already stays on."""
    for compute, stage, again, states, parameters, micro in product(
        {now.compute_bytes, 2},
        range(now.stage, 4),
        {now.recompute, True},
        {now.offload_optimizer, _away(now.offload_optimizer)},
        {now.offload_param, _away(now.offload_param)},
        _halved(now.micro_batch),
    ):
        if (states != "none" and stage == 0) or (parameters != "none" and (stage < 3 or states == "none")):
            continue
        lower = compute < now.compute_bytes
        yield _advice(
            now,
            replace(
                now,
                compute_bytes=compute,
                reduce_bytes=min(now.reduce_bytes, 2) if lower else now.reduce_bytes,
                stage=stage,
                recompute=again,
                offload_optimizer=states,
                offload_param=parameters,
                micro_batch=micro,
                accumulation=now.accumulation * (now.micro_batch // micro),
            ),
        )


def _advice(now: Settings, then: Settings) -> Advice:
    zero: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    changes = []
    if then.compute_bytes != now.compute_bytes:
        changes.append("bf16")
        keys["bf16"] = {"enabled": True}
    if then.stage != now.stage:
        changes.append("stage")
        zero["stage"] = then.stage
    if then.recompute != now.recompute:
        changes.append("activation_checkpointing")
        keys["activation_checkpointing"] = {}
    for name in ("offload_optimizer", "offload_param"):
        if getattr(then, name) != getattr(now, name):
            changes.append(name)
            zero[name] = {"device": getattr(then, name)}
    if then.micro_batch != now.micro_batch:
        changes.append("train_micro_batch_size_per_gpu")
        keys["train_micro_batch_size_per_gpu"] = then.micro_batch
        keys["gradient_accumulation_steps"] = then.accumulation
    if zero:
        keys["zero_optimization"] = zero
    return Advice(settings=then, changes=tuple(changes), keys=keys)


def _away(device: str) -> str:
    return "cpu" if device == "none" else device


def _halved(micro: int) -> list[int]:
    """The divisors of a micro-batch that keep the global batch as it is, the largest first."""
    return [size for size in range(micro, 0, -1) if micro % size == 0]
