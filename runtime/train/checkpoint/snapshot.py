"""What is saved, as it was at one optimizer step: on the host, where training cannot change it any more."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from runtime.errors import BadInput
from runtime.train.checkpoint.archive import read_bytes
from runtime.train.checkpoint.state import model_tensors, optimizer_tensors, progress_of, random_states, split
from runtime.train.offload.shards import like, local

if TYPE_CHECKING:
    from runtime.train.state import TrainingState


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One rank's part of a checkpoint: its shards by name, and two small files as bytes."""

    tag: str
    step: int
    shards: dict[str, torch.Tensor]
    progress: bytes
    random: bytes


class Staging:
    """Host memory for shards, kept from save to save: its pages are touched once. Pinned for a GPU."""

    def __init__(self) -> None:
        self._room: dict[str, torch.Tensor] = {}

    def copy(self, shards: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Copies of the shards, whole when this returns; they stay until the next copy."""
        self._room = {key: self._room_for(key, value) for key, value in shards.items()}
        on_device = False
        for key, value in shards.items():
            shard = local(value)
            on_device |= shard.is_cuda
            local(self._room[key]).copy_(shard, non_blocking=True)
        if on_device:
            torch.cuda.current_stream().synchronize()
        return dict(self._room)

    def _room_for(self, key: str, value: torch.Tensor) -> torch.Tensor:
        shard, old = local(value), self._room.get(key)
        if old is not None and local(old).shape == shard.shape and old.dtype == value.dtype:
            return old
        host = torch.empty_like(shard, device="cpu", pin_memory=shard.is_cuda)
        return like(value, host)


def take(
    training: TrainingState,
    tag: str,
    client_state: Mapping[str, Any],
    *,
    frozen: bool,
    staging: Staging | None,
) -> Snapshot:
    """This rank's part of a checkpoint; without `staging` the shards are the live ones.

    Raises:
        BadInput: the script's or the schedule's state holds what could not be loaded again.
    """
    shards, whole = split(model_tensors(training.module, frozen=frozen) | optimizer_tensors(training))
    return Snapshot(
        tag=tag,
        step=training.global_steps,
        shards=staging.copy(shards) if staging else shards,
        progress=loadable_bytes(progress_of(training, client_state, whole)),
        random=_bytes_of(random_states()),
    )


def _bytes_of(content: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def loadable_bytes(progress: Mapping[str, Any]) -> bytes:
    """Refuses now what could not be loaded later: only plain data and tensors are read back."""
    content = _bytes_of(progress)
    try:
        read_bytes(content)
    except ValueError as e:
        raise BadInput(
            "save client_state and the schedule's state",
            found=f"an object that is not loaded for safety ({str(e).splitlines()[0]})",
            fix="Keep numbers, strings, lists, dicts and tensors in it.",
        ) from e
    return content
