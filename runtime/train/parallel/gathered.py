"""Stages 1 and 2 hold whole parameters at all times: gathered once after each step, kept until the next.

FSDP2 goes on putting shards and whole parameters in each other's place, so that between steps the parameters
of the module are the shards; only that what is gathered is not freed, and not gathered again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.distributed as dist
from torch import nn

from runtime.errors import BadInput
from runtime.train.parallel.fsdp import Sharded, UnitState, at_rest, shard_now, unit_states, units


class Gathered:
    """What is gathered of a model's units.

    Args:
        group: the ranks that together hold one copy of the parameters; at least two.
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup) -> None:
        self._states, self._group = unit_states(model), group
        self._size, self._rank = dist.get_world_size(group), dist.get_rank(group)
        self._was_cut_off = self._has_asked = False
        for state in self._states:
            state.unshard = partial(self._unshard, state, state.unshard)
            for parameter in state.fsdp_params:
                parameter.free_unsharded_param = _keep
        for unit in units(model):
            cast(nn.Module, unit).register_forward_pre_hook(self.before_forward, prepend=True)

    def renew(self) -> None:
        """Gathers all units beside what comes next; a forward waits for each as it needs it. Collective."""
        self.release()
        for state in self._states:
            state.unshard(async_op=True)

    def settle(self) -> None:
        """Waits for what is being gathered."""
        for state in self._states:
            _settle(state)

    def release(self) -> None:
        """Frees what is gathered, before the shards change."""
        for state in self._states:
            _settle(state)
            _free(state)

    def whole(self, state: UnitState, parameter: Sharded) -> torch.Tensor:
        """A whole parameter as the module computes with it, without asking other ranks; not a copy.

        Raises:
            BadInput: this rank's shard was changed since it was gathered, or nothing is yet.
        """
        _settle(state)
        is_kept = _is_kept(state)
        if not is_kept or (state.is_sharded and bool(self._differs(state))):
            raise BadInput(
                "read whole parameters on one rank",
                found="shards were changed after the last step, and other ranks' changes are not here"
                if is_kept
                else "a model that was built without weights, before its first forward",
                fix="Let every rank run a forward first, or call engine.save_checkpoint on every rank.",
            )
        whole: torch.Tensor = parameter._unsharded_param
        return whole.detach()

    def _unshard(self, state: UnitState, gather: Callable[[bool], None], async_op: bool = False) -> None:
        if state.is_sharded and state._all_gather_result is None and _is_kept(state):
            state._to_unsharded()
        else:
            gather(async_op)

    def note_cut_off(self) -> None:
        """Takes note of a forward that an exception has ended, perhaps on this rank alone."""
        self._was_cut_off = True

    def agree_once(self) -> None:
        """Asks the others what was changed where no forward has, before this rank reduces. Collective."""
        if not self._has_asked:
            self._agree()

    def rest(self) -> None:
        """All ranks have reduced: what comes next begins anew."""
        self._was_cut_off = self._has_asked = False

    def before_forward(self, module: nn.Module, *_: object, alone: bool = False) -> None:
        """Gathers anew what was gathered of shards that were changed since (clipped, averaged).

        All ranks agree on it, since a change may leave one rank's shard as it was. Not so in evaluation and
        after a forward that was cut off, where other ranks may not be there: if nothing was changed here.

        Args:
            alone: whether this may be no forward of all ranks.
        """
        if not at_rest(module) or not all(state.is_sharded for state in self._states):
            return
        may_be_alone = alone or self._was_cut_off or not module.training
        if may_be_alone and not self._changed().any():
            return
        self._agree()

    def _agree(self) -> None:
        changed = self._changed().float()
        dist.all_reduce(changed, op=dist.ReduceOp.MAX, group=self._group)
        self._has_asked = True
        again = [
            state for state, is_changed in zip(self._states, changed.tolist(), strict=True) if is_changed
        ]
        for state in again:
            if state.is_unsharded:
                state._to_sharded()
            _settle(state)
            _free(state)
        for state in again:  # now, and not as they are used: another rank may not use them
            state.unshard(async_op=True)

    def _changed(self) -> torch.Tensor:
        return torch.stack([self._differs(state) for state in self._states])

    def _differs(self, state: UnitState) -> torch.Tensor:
        """Whether a unit's shards on this rank are no longer what was gathered of them, if anything was."""
        now = [shard_now(parameter) for parameter in state.fsdp_params]
        pending = state._all_gather_result
        if pending is not None:
            mine = pending.all_gather_output.view(self._size, -1)[self._rank]
            then = torch.split(mine, pending.all_gather_input_split_sizes)
        elif _is_kept(state):
            then = tuple(p.all_gather_outputs[0].view(self._size, -1)[self._rank] for p in state.fsdp_params)
        else:
            return torch.ones((), dtype=torch.bool, device=state.device)
        pairs = zip(now, then, strict=True)
        return torch.stack([(ours != theirs.view(ours.dtype)).any() for ours, theirs in pairs]).any()


def _keep() -> None:
    """In the place of FSDP2's freeing."""


def _settle(state: UnitState) -> None:
    """Waits for a gather under way, and puts the shards in the place of what it brought."""
    if state._all_gather_result is not None:
        state.wait_for_unshard()
        state._to_sharded()


def _is_kept(state: UnitState) -> bool:
    return any(t.untyped_storage().size() for p in state.fsdp_params for t in p.all_gather_outputs)


def _free(state: UnitState) -> None:
    for parameter in state.fsdp_params:
        type(parameter).free_unsharded_param(parameter)
