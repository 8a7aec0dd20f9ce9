"""Where an engine's states are between trainings: on the device, in host memory, or nowhere any more."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput
from runtime.train.facts import Facts
from runtime.train.offload.shards import like, local
from runtime.train.optim.optimizer import needed

_STATES = "optim_states"
_OTHERS = ("hp_params", "lp_params", "lp_grads", "contiguous_grad_buffer")


class Residence(Facts):
    """The part of an engine that makes room on the device for somebody else."""

    _is_away = False
    _is_destroyed = False

    def offload_states(
        self,
        include: Iterable[Any] | None = None,
        device: Any = "cpu",
        pin_memory: bool = True,
        non_blocking: bool = False,
    ) -> None:
        """Moves the optimizer's states to host memory, until `reload_states`. They are what takes most room.

        Args:
            include: which states; all that can be moved where None.

        Raises:
            BadInput: others than the optimizer's are asked for, or another place than host memory.
        """
        wanted = [str(getattr(one, "value", one)) for one in include] if include is not None else [_STATES]
        place = str(getattr(device, "value", device))
        if wanted != [_STATES] or place != "cpu":
            raise BadInput(
                f"offload {', '.join(wanted)} to {place}",
                found=f"of {', '.join((_STATES, *_OTHERS))} the first alone can be moved, to cpu",
                fix='Call offload_states(include=["optim_states"]); the configuration can offload more.',
            )
        self._move(torch.device("cpu"), pin=pin_memory and self.device.type != "cpu")
        self._is_away = True

    def reload_states(self, non_blocking: bool = False) -> None:
        """Brings back what `offload_states` has moved."""
        if self._is_away:
            self._move(None, pin=False)
        self._is_away = False

    def empty_partition_cache(self) -> None:
        """Gives memory back that no tensor uses."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def destroy(self) -> None:
        """Ends training with this engine: drops gradients and the optimizer's states, not the weights."""
        self._end_saves()
        self.zero_grad()
        if self.optimizer is not None:
            self.optimizer.state.clear()
        self._is_destroyed = True
        self.empty_partition_cache()

    def _end_saves(self) -> None:
        raise NotImplementedError

    def _move(self, device: torch.device | None, *, pin: bool) -> None:
        optimizer = needed(self.optimizer, "move the optimizer's states")
        for parameter, states in optimizer.state.items():
            home = device or local(parameter).device
            for kind, value in states.items():
                if isinstance(value, DTensor):
                    shard = local(value).to(home)
                    states[kind] = like(parameter, shard.pin_memory() if pin else shard)

    def _check_at_home(self) -> None:
        if self._is_destroyed:
            raise BadInput(
                "update weights",
                found="an engine that was destroyed",
                fix="Make another one with runtime.initialize; load_checkpoint brings its states back.",
            )
        if self._is_away:
            raise BadInput(
                "update weights",
                found="the optimizer's states in host memory (offload_states)",
                fix="Call engine.reload_states() first.",
            )
