"""From DeepSpeed's checkpoint to one of ours, one tensor in memory at a time."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import MetadataIndex

from runtime.errors import BadInput, CheckpointFailed, RuntimeFault
from runtime.train.checkpoint import folder as disk
from runtime.train.checkpoint.deepspeed.pickles import Inert, loadable
from runtime.train.checkpoint.deepspeed.source import Source, open_source
from runtime.train.checkpoint.listing import METADATA
from runtime.train.checkpoint.manifest import MANIFEST, Manifest, record_of
from runtime.train.checkpoint.shards import write_shards
from runtime.train.checkpoint.snapshot import loadable_bytes
from runtime.train.checkpoint.state import MODEL, OPTIMIZER, PROGRESS
from runtime.train.checkpoint.table import Shape, to_json
from runtime.untrusted.documents import sides

logger = logging.getLogger("runtime")
# What the engine itself writes into its model states; the rest is the script's.
_THEIRS = {
    "module",
    "buffer_names",
    "optimizer",
    "param_shapes",
    "frozen_param_shapes",
    "shared_params",
    "frozen_param_fragments",
    "lr_scheduler",
    "data_sampler",
    "random_ltd",
    "skipped_steps",
    "global_steps",
    "global_samples",
    "dp_world_size",
    "mp_world_size",
    "checkpoint_parallel_dimensions",
    "ds_config",
    "ds_version",
    "universal_checkpoint_info",
    "sparse_tensor_module_names",
    "ds_autoep_layers",
}
_OPTIONS = ("lr", "initial_lr", "betas", "eps", "weight_decay", "momentum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """A tensor that is put together when it is written."""

    shape: Shape
    dtype: torch.dtype
    make: Callable[[], torch.Tensor]


def import_checkpoint(path: Path, root: Path) -> Path:
    """Writes DeepSpeed's checkpoint as one of ours, under its tag, and points `latest` at it.

    Raises:
        BadInput: it is of a kind that is not imported, or the tag exists in `root`.
        CheckpointFailed: a file is missing, damaged or of another save; nothing is written.
    """
    try:
        return _import(path, root)
    except (RuntimeFault, OSError, MemoryError):
        raise
    except Exception as e:  # what files that hold something else do to their reader is not to be foreseen
        [first, *_] = e.args or (None,)
        why = repr(first[:120]) if isinstance(first, str) else "something is of another kind"
        raise CheckpointFailed(
            f"import {path}",
            found=f"its files do not hold what DeepSpeed's do ({type(e).__name__}: {why})",
            fix="Bring it again from where it was saved, or take an earlier checkpoint.",
        ) from e


def _import(path: Path, root: Path) -> Path:
    source = open_source(path)
    tag = disk.check_tag(source.folder.resolve().name)
    if (root / tag).exists():
        raise BadInput(f"import into {root / tag}", found="it exists", fix="Name another folder.")
    sharded = _tensors(source)
    progress = loadable_bytes(_progress(source))
    run = secrets.token_hex(4)
    partial = root / disk.partial_name(tag, run, run)
    partial.mkdir(parents=True)
    try:
        _write_tensors(partial, sharded)
        disk.write_atomically(partial / PROGRESS, progress)
        files = {file.name: record_of(file, 0) for file in sorted(partial.iterdir())}
        manifest = Manifest(
            tag=tag,
            run=run,
            step=int(source.model["global_steps"]),
            stage=source.stage,
            world_size=1,  # one process wrote it
            saved_at=time.time(),
            files=files,
        )
        disk.write_atomically(partial / MANIFEST, manifest.to_json().encode())
        disk.commit(partial, root / tag)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    disk.write_latest(root, tag)
    return root / tag


def _tensors(source: Source) -> dict[str, Sharded]:
    """Masters, the optimizer's states and frozen weights."""
    first, found = source.parts[0], dict(_frozen(source))
    for name, place in _places(source).items():
        found[MODEL + name] = _sharded(source, place, "", name)
        for kind, value in first.states.get(place.flat, {}).items():
            if isinstance(value, torch.Tensor) and value.dim():
                found[f"{OPTIMIZER}{name}.{kind}"] = _sharded(source, place, kind, name)
    return found


def _places(source: Source) -> dict[str, Place]:
    groups = [
        {name: sides(shape, f"the shape of {name}") for name, shape in group.items()}
        for group in source.model["param_shapes"]
    ]
    lengths = [len(flat) for flat in source.parts[0].masters]
    ranks = len(source.parts)
    if source.stage == 3:
        try:
            return in_parts(groups, lengths, ranks)
        except ValueError as e:
            raise _cut_off(source, str(e)) from e
    paddings = source.parts[0].content.get("param_alignment_paddings")
    return in_ranges(groups, lengths, paddings or [[0] * len(group) for group in groups], ranks)


def _sharded(source: Source, place: Place, kind: str, name: str) -> Sharded:
    flats = [part.flat(place.flat, kind) for part in source.parts]
    held = sum(min(len(flats[p.rank]), p.stop) - min(len(flats[p.rank]), p.start) for p in place.pieces)
    if held != torch.Size(place.shape).numel():
        raise _cut_off(source, f"{kind or 'masters'} of {name} has {held} elements of {place.shape}")
    return _joined(flats, place.pieces, place.shape)


def _frozen(source: Source) -> Iterator[tuple[str, Sharded]]:
    """Weights that are not trained: whole in the model's state, in stage 3 in parts."""
    model = source.model
    if source.stage == 3:
        for name, shape in (model.get("frozen_param_shapes") or {}).items():
            flats = [states["frozen_param_fragments"][name].flatten() for states in source.models]
            lengths = sides(shape, f"the shape of {name}")
            yield MODEL + name, _joined(flats, whole(lengths, len(flats)), lengths)
        return
    known = {name for group in model["param_shapes"] for name in group}
    known |= {*model["buffer_names"], *model["shared_params"]}
    for name, value in model["module"].items():
        if name not in known and isinstance(value, torch.Tensor):
            yield MODEL + name, Sharded(shape=tuple(value.shape), dtype=value.dtype, make=value.detach)


def _joined(flats: list[torch.Tensor], pieces: tuple[Piece, ...], shape: Shape) -> Sharded:
    def make() -> torch.Tensor:
        return torch.cat([flats[p.rank].detach()[p.start : p.stop] for p in pieces]).view(shape)

    return Sharded(shape=shape, dtype=flats[0].dtype, make=make)


def _cut_off(source: Source, found: str) -> CheckpointFailed:
    return CheckpointFailed(
        f"import {source.folder}", found=found, fix="Its files are not of one model; take another checkpoint."
    )


def _progress(source: Source) -> dict[str, Any]:
    model = source.model
    client, left_out = loadable({k: value for k, value in model.items() if k not in _THEIRS})
    if left_out:
        logger.warning("left out of the script's state, since they hold objects: %s", ", ".join(left_out))
    return {
        "global_steps": int(model["global_steps"]),
        "skipped_steps": int(model["skipped_steps"]),
        "loss_scale": _loss_scale(source.parts[0].content.get("loss_scaler")),
        "lr_scheduler": model["lr_scheduler"],
        "data": None,  # DeepSpeed does not save where its data stood
        "param_groups": [{k: group[k] for k in _OPTIONS if k in group} for group in source.parts[0].groups],
        "tensors": _whole(source),
        "client_state": client,
    }


def _whole(source: Source) -> dict[str, torch.Tensor]:
    """Buffers, and the step counts of the parameters."""
    buffers = {MODEL + name: source.model["module"][name] for name in source.model["buffer_names"]}
    first = source.parts[0]
    in_groups = {number: group.get("step") for group in first.groups for number in group["params"]}
    for name, place in _places(source).items():
        step = first.states.get(place.flat, {}).get("step", in_groups.get(place.flat))
        if step is not None:
            buffers[f"{OPTIMIZER}{name}.step"] = torch.tensor(float(step))
    return {key: value.detach().clone() for key, value in buffers.items()}


def _loss_scale(scaler: Any) -> dict[str, Any]:
    """Of DeepSpeed's DynamicLossScaler (runtime/fp16/loss_scaler.py), or a constant one."""
    state = scaler.state if isinstance(scaler, Inert) and isinstance(scaler.state, Mapping) else {}
    names = {
        "value": "cur_scale",
        "step": "cur_iter",
        "last_overflow": "last_overflow_iter",
        "hysteresis_left": "cur_hysteresis",
    }
    return {"value": 1.0} | {ours: state[theirs] for ours, theirs in names.items() if theirs in state}


class _OneByOne(DefaultSavePlanner):
    """Makes each tensor when it is written, and not before."""

    def __init__(self, tensors: Mapping[str, Sharded]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._tensors = tensors

    def lookup_object(self, index: MetadataIndex) -> torch.Tensor:
        return self._tensors[index.fqn].make()


def _write_tensors(folder: Path, tensors: Mapping[str, Sharded]) -> None:
    shapes = {name: torch.empty(one.shape, dtype=one.dtype, device="meta") for name, one in tensors.items()}
    table = write_shards(folder, 0, shapes, _OneByOne(tensors))
    disk.write_atomically(folder / METADATA, to_json(table))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Elements `start` to `stop` of the flat tensor of a rank."""

    rank: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A parameter's pieces, in order, in the flat tensors number `flat` of the ranks."""

    shape: Shape
    flat: int
    pieces: tuple[Piece, ...]


def in_ranges(
    groups: Sequence[Mapping[str, Shape]],
    lengths: Sequence[int],
    paddings: Sequence[Sequence[int]],
    ranks: int,
) -> dict[str, Place]:
    """Stages 1 and 2: a group is one vector, of which each rank has `lengths[group]` elements.

    Args:
        paddings: unused elements after each parameter of each group.
    """
    places = {}
    for group, shapes in enumerate(groups):
        offset = 0
        for (name, shape), padding in zip(shapes.items(), paddings[group], strict=True):
            pieces = _ranges(offset, offset + prod(shape), lengths[group], ranks)
            places[name] = Place(shape=shape, flat=group, pieces=pieces)
            offset += prod(shape) + padding
    return places


def in_parts(groups: Sequence[Mapping[str, Shape]], lengths: Sequence[int], ranks: int) -> dict[str, Place]:
    """Stage 3: each rank has an equal part of every parameter, laid into sub-groups of `lengths` elements.

    Raises:
        ValueError: the sub-groups do not hold these parameters.
    """
    places = {}
    flat, offset = 0, 0
    for name, shape in (pair for shapes in groups for pair in shapes.items()):
        part = -(-prod(shape) // ranks)
        while part and flat < len(lengths) and offset == lengths[flat]:
            flat, offset = flat + 1, 0
        if part and (flat == len(lengths) or offset + part > lengths[flat]):
            raise ValueError(f"no sub-group holds {name} whole")
        places[name] = Place(shape=shape, flat=flat, pieces=_parts(prod(shape), part, offset, ranks))
        offset += part
    return places


def whole(shape: Shape, ranks: int) -> tuple[Piece, ...]:
    """The pieces of a parameter that is alone in its flat tensors, as frozen ones are in stage 3."""
    return _parts(prod(shape), -(-prod(shape) // ranks), 0, ranks)


def _ranges(start: int, stop: int, length: int, ranks: int) -> tuple[Piece, ...]:
    pieces = []
    for rank in range(ranks):
        low, high = max(start, rank * length), min(stop, (rank + 1) * length)
        if low < high:
            pieces.append(Piece(rank=rank, start=low - rank * length, stop=high - rank * length))
    return tuple(pieces)


def _parts(count: int, part: int, offset: int, ranks: int) -> tuple[Piece, ...]:
    used = [max(0, min(part, count - rank * part)) for rank in range(ranks)]
    return tuple(
        Piece(rank=rank, start=offset, stop=offset + length) for rank, length in enumerate(used) if length
    )
