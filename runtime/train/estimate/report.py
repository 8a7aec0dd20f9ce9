"""An estimate as a person reads it and as JSON, with the smallest change that makes a training fit. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from runtime.errors import BadInput
from runtime.train.estimate.states import Estimate, Model, Parts, Settings, estimate

_UNITS = {
    "": 1,
    "B": 1,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}
PARTS = ("parameters", "gathered", "gradients", "optimizer", "activations", "buffers")
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
    """Fewest kinds of change first; among as many, those that come first in `_ORDER`.

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
        yield _advised(
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


def _advised(now: Settings, then: Settings) -> Advice:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A model under a configuration; `variants` are the other stages and places of the optimizer."""

    model: Model
    settings: Settings
    device_bytes: int
    ranks_per_node: int
    estimate: Estimate
    fits: bool
    advice: Advice | None
    variants: tuple[tuple[int, str, Estimate, bool], ...]


def parse_bytes(text: str) -> int:
    """Bytes of "24GB" (10^9 each) or "22.5GiB" (2^30 each).

    Raises:
        BadInput: it is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS or float(match[1]) == 0:
        raise BadInput(
            f"take {text!r} as a size of memory", found="no such size", fix="Write 24GB or 22.5GiB."
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def report(model: Model, settings: Settings, device_bytes: int, ranks_per_node: int) -> Report:
    """The configuration as it is, what would make it fit, and a table of its neighbours."""
    fitting = fits(model, settings, device_bytes)
    return Report(
        model=model,
        settings=settings,
        device_bytes=device_bytes,
        ranks_per_node=ranks_per_node,
        estimate=estimate(model, settings),
        fits=fitting,
        advice=None if fitting else advise(model, settings, device_bytes),
        variants=tuple(_variants(model, settings, device_bytes)),
    )


def as_json(found: Report) -> str:
    """Everything, in bytes."""
    document: dict[str, Any] = {
        "model": {**asdict(found.model), "parameters": found.model.parameters},
        "settings": asdict(found.settings),
        "device_bytes": found.device_bytes,
        "reserve": RESERVE,
        "estimate": _totals(found.estimate),
        "fits": found.fits,
        "advice": found.advice and {"changes": found.advice.changes, "keys": found.advice.keys},
        "variants": [
            {"stage": stage, "offload_optimizer": place, "fits": fitting, **_totals(one)}
            for stage, place, one, fitting in found.variants
        ],
    }
    return json.dumps(document, indent=2)


def lines(found: Report) -> Iterator[str]:
    """The report, for people."""
    model = found.model
    yield f"{model.name}: {model.parameters:,} parameters, {model.trained:,} of them trained"
    yield f"activations from {model.activations_from}"
    yield ""
    yield f"{'bytes a rank':14}{'device':>10}{'host':>10}{'disk':>10}"
    for part in PARTS:
        yield f"{part:14}{_row(getattr(where, part) for where in _places(found.estimate))}"
    yield f"{'total':14}{_row(where.total for where in _places(found.estimate))}"
    yield f"host memory of a node: {readable(found.estimate.host.total * found.ranks_per_node)}"
    yield ""
    yield f"stage  optimizer on  {'device':>8}{'host':>10}{'disk':>10}"
    for stage, place, one, fitting in found.variants:
        sizes = _row(where.total for where in _places(one))
        yield f"{stage:>5}  {place:12}{sizes}  {'fits' if fitting else 'too large'}"
    yield ""
    yield (
        f"{'fits' if found.fits else 'DOES NOT FIT'}: {readable(found.estimate.device.total)} of "
        f"{readable(found.device_bytes * (1 - RESERVE))}, which are {readable(found.device_bytes)} less "
        f"{RESERVE:.0%} for the driver, NCCL and fragments"
    )
    yield from _advice(found)


def _advice(found: Report) -> Iterator[str]:
    if found.fits:
        return
    if found.advice is None:
        yield "no configuration makes it fit; more ranks, shorter sequences or a larger device would"
        return
    then = estimate(found.model, found.advice.settings)
    yield f"smallest change ({readable(then.device.total)}, and {readable(then.host.total)} in host memory):"
    yield json.dumps(found.advice.keys)


def _variants(
    model: Model, settings: Settings, device_bytes: int
) -> Iterator[tuple[int, str, Estimate, bool]]:
    for stage in range(4):
        for place in ("device", "cpu", "nvme") if stage else ("device",):
            away = "none" if place == "device" else place
            kept = settings.offload_param if stage == 3 and away == settings.offload_optimizer else "none"
            one = replace(settings, stage=stage, offload_optimizer=away, offload_param=kept)
            yield stage, place, estimate(model, one), fits(model, one, device_bytes)


def _places(found: Estimate) -> tuple[Parts, Parts, Parts]:
    return found.device, found.host, found.disk


def _totals(found: Estimate) -> dict[str, dict[str, int]]:
    names = ("device", "host", "disk")
    return {
        name: {**asdict(where), "total": where.total}
        for name, where in zip(names, _places(found), strict=True)
    }


def _row(sizes: Iterable[int]) -> str:
    return "".join(f"{readable(size):>10}" for size in sizes)


def readable(size: float) -> str:
    """In GB of 10^9 bytes, or MB of 10^6 where it is less than one."""
    if size == 0:
        return "-"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
