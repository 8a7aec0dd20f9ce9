"""What a checkpoint holds of an engine: tensors by name, sharded as they are, and progress.pt."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput
from runtime.train.checkpoint.archive import read_archive
from runtime.train.checkpoint.manifest import Manifest
from runtime.train.offload.shards import local
from runtime.untrusted.documents import mapping, whole

if TYPE_CHECKING:  # an export reads checkpoints in little memory
    from runtime.train.state import TrainingState

MODEL, OPTIMIZER = "model.", "optimizer."
PROGRESS = "progress.pt"
_KINDS: Mapping[str, tuple[type, ...]] = {
    "loss_scale": (dict,),
    "lr_scheduler": (dict, type(None)),
    "param_groups": (list,),
    "client_state": (dict,),
}


def model_tensors(module: nn.Module, *, frozen: bool) -> dict[str, torch.Tensor]:
    """Parameters (tied ones once) and persistent buffers, by name."""
    tensors: dict[str, torch.Tensor] = {
        MODEL + name: parameter.detach()
        for name, parameter in module.named_parameters()
        if frozen or parameter.requires_grad
    }
    return tensors | {MODEL + name: buffer for name, buffer in _persistent(module)}


def optimizer_tensors(training: TrainingState) -> dict[str, torch.Tensor]:
    """The optimizer's states by the name of their parameter; the same keys for every stage and size."""
    return {
        f"{OPTIMIZER}{name}.{kind}": value
        for name, parameter in training.module.named_parameters()
        for kind, value in _states_of(training, parameter).items()
        if isinstance(value, torch.Tensor)
    }


def _groups_of(training: TrainingState) -> list[dict[str, Any]]:
    return training.optimizer.param_groups if training.optimizer is not None else []


def _states_of(training: TrainingState, parameter: torch.Tensor) -> dict[str, Any]:
    if training.optimizer is None:
        return {}
    states: dict[str, Any] = training.optimizer.state.get(parameter, {})
    return states


def split(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The sharded ones, of which each rank writes its part, and those that every rank has whole.

    The latter (buffers, step counts) are kept with the progress: were one rank to write them for all, no rank
    could do with its own file.
    """
    sharded: dict[str, torch.Tensor] = {
        k: value for k, value in tensors.items() if isinstance(value, DTensor)
    }
    others = {key: value for key, value in tensors.items() if key not in sharded}
    return sharded, {key: value.detach().cpu().contiguous() for key, value in others.items()}


def room_for_optimizer(training: TrainingState, saved: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Room for the sharded states that a checkpoint holds, sharded as this engine's parameters are.

    Raises:
        ValueError: one has not the shape of its parameter.
    """
    parameters = dict(training.module.named_parameters())
    room = {}
    for key, shape in saved.items():
        name, _, _ = key.removeprefix(OPTIMIZER).rpartition(".")
        if key.startswith(OPTIMIZER) and name in parameters:
            if shape != parameters[name].shape:
                raise ValueError(f"{key} has shape {list(shape)}, not {list(parameters[name].shape)}")
            room[key] = torch.zeros_like(parameters[name].detach())
    return room


def fill_optimizer(training: TrainingState, tensors: Mapping[str, torch.Tensor]) -> None:
    """Makes loaded tensors the optimizer's states."""
    optimizer = training.optimizer
    if optimizer is None:
        return
    options = {p: group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in training.module.named_parameters():
        prefix = f"{OPTIMIZER}{name}."
        state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if state and parameter in options:
            on_device = options[parameter].get("fused") or options[parameter].get("capturable")
            optimizer.state[parameter] = {
                kind: value
                if isinstance(value, DTensor) or not on_device
                else value.to(local(parameter).device)
                for kind, value in state.items()
            }


def progress_of(
    training: TrainingState, client_state: Mapping[str, Any], whole: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Everything else that a resumed run needs, the same on every rank."""
    groups = [
        {name: value for name, value in group.items() if name != "params"} for group in _groups_of(training)
    ]
    return {
        "global_steps": training.global_steps,
        "skipped_steps": training.skipped_steps,
        "loss_scale": training.scaling.state_dict(),
        "lr_scheduler": training.lr_scheduler.state_dict() if training.lr_scheduler is not None else None,
        "data": training.data_position(),
        "param_groups": groups,
        "tensors": dict(whole),
        "client_state": dict(client_state),
    }


def restore_progress(
    training: TrainingState, progress: Mapping[str, Any], *, optimizer: bool, schedule: bool
) -> None:
    """Puts an engine back to where `progress_of` was taken."""
    training.resume(
        global_steps=progress["global_steps"],
        skipped_steps=progress["skipped_steps"],
        data=progress["data"],
    )
    if optimizer:
        training.scaling.load_state_dict(progress["loss_scale"])
        groups = _groups_of(training)
        _check_groups(len(groups), len(progress["param_groups"]))
        for group, saved in zip(groups, progress["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
    if schedule and training.lr_scheduler is not None and progress["lr_scheduler"] is not None:
        foreign = set(progress["lr_scheduler"]) - set(training.lr_scheduler.state_dict())
        if foreign:  # torch's schedules take over any name, that of a method as well
            raise ValueError(f"the schedule's state has {sorted(map(str, foreign))[0]!r}, which it knows not")
        training.lr_scheduler.load_state_dict(progress["lr_scheduler"])


def random_states() -> dict[str, Any]:
    """This rank's random-number generators."""
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Sets this rank's random-number generators.

    Raises:
        ValueError: they are none of Python's.
    """
    torch.set_rng_state(states["torch"])
    random.setstate(_of_python(states["python"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _persistent(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for prefix, child in module.named_modules():
        for name, buffer in child.named_buffers(recurse=False):
            if name not in child._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name, buffer


def _check_groups(ours: int, saved: int) -> None:
    if ours != saved:
        raise BadInput(
            "load the optimizer's states",
            found=f"{saved} parameter groups in the checkpoint, {ours} in this optimizer",
            fix="Pass the same groups, or load with load_optimizer_states=False.",
        )


def _of_python(state: Any) -> tuple[int, tuple[int, ...], float | None]:
    """What random.getstate gave: a version, 625 numbers, and half a pair of normal ones or nothing."""
    match state:
        case [version, [*words], float() | None as spare]:
            what = "a part of Python's random state"
            return whole(version, what), tuple(whole(word, what) for word in words), spare
    raise ValueError("it holds no random state of Python's")


def read_progress(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """All that `progress_of` made.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or holds something else.
    """
    progress = _read(folder, manifest)
    for name, kinds in _KINDS.items():
        if not isinstance(progress.get(name, ...), kinds):
            raise ValueError(f"{PROGRESS}: its {name} is damaged")
    whole(progress.get("global_steps"), f"{PROGRESS}: global_steps")
    whole(progress.get("skipped_steps"), f"{PROGRESS}: skipped_steps")
    if not all(isinstance(group, dict) for group in progress["param_groups"]):
        raise ValueError(f"{PROGRESS}: its param_groups are damaged")
    return progress


def read_whole(folder: Path, manifest: Manifest) -> dict[str, torch.Tensor]:
    """The tensors that every rank has whole, by name.

    Raises:
        OSError, ValueError: see `read_progress`.
    """
    tensors: dict[str, torch.Tensor] = _read(folder, manifest)["tensors"]
    return tensors


def _read(folder: Path, manifest: Manifest) -> dict[str, Any]:
    if PROGRESS not in manifest.files:
        raise ValueError(f"the manifest lists no {PROGRESS}")
    try:
        progress = mapping(read_archive(folder / PROGRESS), "it")
        tensors = mapping(progress.get("tensors"), "its tensors")
        if not all(isinstance(one, torch.Tensor) and isinstance(key, str) for key, one in tensors.items()):
            raise ValueError("it holds no tensors by name")
    except ValueError as e:
        raise ValueError(f"{PROGRESS}: {e}") from e
    return progress
