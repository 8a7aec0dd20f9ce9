"""Loading: verify every bit, fall back to the newest whole checkpoint, reshard to this size and stage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from runtime.errors import BadInput, CheckpointFailed
from runtime.topology import Topology
from runtime.train.checkpoint import folder as disk
from runtime.train.checkpoint.agree import Disks, all_do, find_disks, gather, raise_first, send_file
from runtime.train.checkpoint.archive import read_archive
from runtime.train.checkpoint.deepspeed.source import is_deepspeed
from runtime.train.checkpoint.listing import METADATA, read_table
from runtime.train.checkpoint.manifest import MANIFEST, Manifest, inspect
from runtime.train.checkpoint.shards import read_shards
from runtime.train.checkpoint.state import (
    MODEL,
    OPTIMIZER,
    PROGRESS,
    fill_optimizer,
    model_tensors,
    read_progress,
    restore_progress,
    restore_random_states,
    room_for_optimizer,
)

if TYPE_CHECKING:
    from runtime.train.state import TrainingState

logger = logging.getLogger("runtime")
_FIX = "Mend the disk and start again; a checkpoint that came from elsewhere, bring again from there."


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was loaded, and what the script had kept with it."""

    path: Path
    client_state: dict[str, Any]


def load(
    training: TrainingState, root: Path, tag: str | None, *, optimizer: bool = True, schedule: bool = True
) -> Loaded | None:
    """Loads a checkpoint into an engine of any size and stage. Collective.

    Args:
        tag: this one or none; where None, the one that `latest` names, or else the newest that is whole.

    Returns:
        None where the folder holds no checkpoint and no tag was asked for.

    Raises:
        CheckpointFailed: the wanted checkpoint is damaged, or none is whole.
    """
    disks = find_disks(root, training.session, training.dims.dp, training.group.topology)
    wanted = disk.check_tag(tag) if tag is not None else _latest(root, training.group.topology)
    candidates = _candidates(root, disks, wanted, only=tag is not None)
    if not candidates:
        _refuse_deepspeed(root)
        if tag is None:
            return None
    faults: list[str] = []
    for name, manifest in candidates:
        found, whole = _survey(root / name, manifest, disks)
        if found or manifest is None:
            faults.append(f"{name}: {'; '.join(found)}")
            logger.error("checkpoint %s is NOT whole (%s)", root / name, "; ".join(found))
            continue
        if faults:
            logger.error("falling back to checkpoint %s of step %d", root / name, manifest.step)
        stage = training.zero_optimization_stage()
        all_do(
            f"bring {name} to every disk",
            partial(_complete, root / name, manifest, disks, whole, stage),
            fix="Free space or mend the disk.",
            topology=training.group.topology,
        )
        return _read(training, root / name, manifest, optimizer=optimizer, schedule=schedule)
    raise _none_whole(root, tag, faults)


def _refuse_deepspeed(root: Path) -> None:
    """A run that was to go on must not begin anew in silence."""
    if any(gather(is_deepspeed(root))):
        raise BadInput(
            f"load a checkpoint from {root}",
            found="DeepSpeed saved it",
            fix=f"Run `python -m runtime checkpoint import {root} FOLDER`, and load from that folder.",
        )


def _none_whole(root: Path, tag: str | None, faults: list[str]) -> CheckpointFailed:
    whole = "Load without a tag to take the newest that is whole."
    return CheckpointFailed(
        f"load {tag or 'a checkpoint'} from {root}",
        found=" | ".join(faults) or "there is no such checkpoint",
        fix=whole if tag else "`python -m runtime checkpoint list` shows what is there.",
    )


def _latest(root: Path, topology: Topology) -> str | None:
    """What `latest` names on the first disk that has it."""
    named = all_do(
        f"read which checkpoint {root / disk.LATEST} names",
        lambda: disk.read_latest(root),
        fix="Write the tag of a checkpoint there into it, or remove it to take the newest.",
        topology=topology,
    )
    return next((disk.check_tag(name) for name in gather(named) if name), None)


def _candidates(
    root: Path, disks: Disks, wanted: str | None, *, only: bool
) -> list[tuple[str, Manifest | None]]:
    """Tags to try with their manifests, from whichever disk has them: the wanted one, then older ones."""
    found: dict[str, disk.Entry] = {}
    for listed in gather([_said(entry) for entry in disk.entries(root)] if disks.leads else []):
        for entry in (disk.heard(root, tag, text) for tag, text in listed):
            if entry.tag not in found or found[entry.tag].manifest is None:
                found[entry.tag] = entry
    ordered = sorted(found.values(), key=_newest_first)
    if wanted is None:
        return [(entry.tag, entry.manifest) for entry in ordered]
    first = found.get(wanted)
    if only or first is None:
        chosen = [first] if first else ([] if only else ordered)
        return [(entry.tag, entry.manifest) for entry in chosen]
    older = [e for e in ordered if e.tag != wanted and not _is_newer(e, first)]
    return [(entry.tag, entry.manifest) for entry in (first, *older)]


def _said(entry: disk.Entry) -> tuple[str, str]:
    return entry.tag, entry.manifest.to_json() if entry.manifest else ""


def _newest_first(entry: disk.Entry) -> tuple[float, float]:
    return (-entry.manifest.step, -entry.manifest.saved_at) if entry.manifest else (1.0, 0.0)


def _is_newer(entry: disk.Entry, than: disk.Entry) -> bool:
    """Someone who turned `latest` back does not want what came after it."""
    return bool(entry.manifest and than.manifest and entry.manifest.step > than.manifest.step)


def _survey(path: Path, manifest: Manifest | None, disks: Disks) -> tuple[list[str], dict[int, set[str]]]:
    """What is lost on every disk, and which files are whole on each (by the rank that acts on it).

    Each rank reads its part of the files that are on its disk.
    """
    if manifest is None:
        return ["its manifest is damaged"], {}
    mates = disks.mates()
    mine = sorted(manifest.files)[mates.index(disks.rank) :: len(mates)]
    damages = gather({damage.name: str(damage) for damage in inspect(path, manifest, mine)})
    whole: dict[int, set[str]] = {leader: set() for leader in disks.all_leaders}
    for leader, names in zip(disks.leaders, gather(mine), strict=True):
        whole[leader] |= set(names)
    for leader, damaged in zip(disks.leaders, damages, strict=True):
        whole[leader] -= set(damaged)
    lost = [name for name in manifest.files if not any(name in names for names in whole.values())]
    return [_account(name, damages) for name in lost], whole


def _account(name: str, damages: Sequence[Mapping[str, str]]) -> str:
    """Damaged says more than missing, which a file is on every disk that it was never written to."""
    said = [damaged[name] for damaged in damages if name in damaged]
    return next((text for text in said if not text.endswith("is missing")), said[0])


def _complete(
    path: Path, manifest: Manifest, disks: Disks, whole: Mapping[int, set[str]], stage: int
) -> None:
    """Brings to each disk the files that its ranks will read and that it lacks or has damaged."""
    if len(disks.all_leaders) == 1:
        return
    needed = [set(names) for names in gather(_needed(manifest, disks, stage) if disks.leads else [])]
    path.mkdir(parents=True, exist_ok=True)
    faults = []
    for name in sorted(manifest.files):
        sender = next(leader for leader in disks.all_leaders if name in whole[leader])
        file, size = path / name, manifest.files[name].size
        for receiver in disks.all_leaders:
            if name in needed[receiver] - whole[receiver]:
                faults.append(
                    send_file(file, file, sender=sender, receiver=receiver, rank=disks.rank, size=size)
                )
    raise_first(faults)
    received = needed[disks.rank] & set(manifest.files) - whole[disks.leaders[disks.rank]]
    if damages := inspect(path, manifest, sorted(received)):
        raise OSError(f"{'; '.join(map(str, damages))}, as another rank sent it")
    if disks.leads and not (path / MANIFEST).exists():
        disk.write_atomically(path / MANIFEST, manifest.to_json().encode())


def _needed(manifest: Manifest, disks: Disks, stage: int) -> list[str]:
    """The files that ranks of this disk read: their own where nothing is resharded, else all."""
    if manifest.world_size != len(disks.leaders) or 0 in (stage, manifest.stage):
        return list(manifest.files)
    mates = disks.mates()
    common = (METADATA, PROGRESS)
    return [name for name, record in manifest.files.items() if record.rank in mates or name in common]


def _read(
    training: TrainingState, path: Path, manifest: Manifest, *, optimizer: bool, schedule: bool
) -> Loaded:
    do = partial(all_do, f"read {path}", fix=_FIX, topology=training.group.topology)
    progress, table = do(lambda: (read_progress(path, manifest), read_table(path, manifest)))
    whole: dict[str, torch.Tensor] = progress["tensors"]
    shapes = {key: torch.Size(tensor.shape) for key, tensor in table.items()}
    model = model_tensors(training.module, frozen=True)
    _check_keys(model, shapes | {key: value.shape for key, value in whole.items()}, training.module, path)
    states = do(lambda: room_for_optimizer(training, shapes) if optimizer else {})
    sharded = {key: value for key, value in model.items() if key in shapes} | states
    do(lambda: read_shards(path, table, sharded))
    for key, value in whole.items():
        if key in model:
            model[key].copy_(value)
    if optimizer:
        fill_optimizer(training, states | whole)
    if optimizer or schedule:
        do(lambda: restore_progress(training, progress, optimizer=optimizer, schedule=schedule))
        do(lambda: _restore_random(training, path, manifest))
        training.run = manifest.run
    return Loaded(path=path, client_state=progress["client_state"])


def _restore_random(training: TrainingState, path: Path, manifest: Manifest) -> None:
    ranks, name = training.dims.dp, f"rank_{training.dims.dp.rank}.pt"
    if ranks.size == manifest.world_size and name in manifest.files:
        restore_random_states(read_archive(path / name))
    elif ranks.is_first:
        logger.warning(
            "saved by %d ranks%s and loaded by %d: random-number states (dropout) are not restored",
            manifest.world_size,
            "" if name in manifest.files else " without them",
            ranks.size,
        )


def _check_keys(
    model: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size], module: torch.nn.Module, path: Path
) -> None:
    """The checkpoint holds what this model trains, in its shapes; frozen weights may be left out."""
    trained = model_tensors(module, frozen=False)
    missing = sorted(key for key in trained if key not in shapes)
    foreign = sorted(key for key in shapes if key.startswith(MODEL) and key not in model)
    other = sorted(key for key, value in model.items() if key in shapes and shapes[key] != value.shape)
    parts = [("lacks", missing), ("has besides", foreign), ("has in another shape", other)]
    found = "; ".join(f"it {what} {_few(keys)}" for what, keys in parts if keys)
    if found:
        raise CheckpointFailed(
            f"load {path} into this model", found=found, fix="Build the model that was saved."
        )


def _few(keys: Iterable[str]) -> str:
    names = [key.removeprefix(MODEL).removeprefix(OPTIMIZER) for key in keys]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
