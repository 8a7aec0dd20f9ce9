"""Gradients are reduced once in a backward, all units in one order, whatever of the model a rank has used.

FSDP2 reduces a unit when autograd is through with it, and not at all where none of its parameters got a
gradient: ranks that use other parts of a model would meet in each other's collectives. Here a unit waits for
those before it, and a parameter that a rank has not used goes along as zeros. What no rank has used has no
gradient in the end (`agree`), as in a plain model.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from runtime.errors import JobFailed
from runtime.train.offload.shards import local
from runtime.train.parallel.fsdp import Sharded, UnitState, sharded, unit_states, units, whole_gradient
from runtime.train.parallel.gather_order import GatherOrder
from runtime.train.parallel.scalars import is_scalar


class Reductions:
    """Takes the reduction of gradients over from FSDP2's units.

    The order is that of a backward through units in the order of the model's modules, so that a unit rarely
    waits; the root comes last.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._order = model, unit_states(model)[::-1]
        self._uses: Counter[int] = Counter()
        self._ready: set[int] = set()
        self._next = 0
        self._has_reduced = False
        for state in self._order:
            state.post_backward = partial(self._after_backward, state)
            state._register_post_backward_hook = partial(self._note_use, state)
        for unit in units(model):
            whole: Any = unit
            root = whole._get_fsdp_state()
            root._root_post_backward_final_callback = partial(self._finish, root)

    @property
    def place(self) -> int:
        """How many units the backward under way has reduced."""
        return self._next

    @property
    def is_due(self) -> bool:
        """Whether this rank has not reduced in this micro-step, or gradients wait that came later."""
        waiting = any(whole_gradient(parameter) is not None for parameter in sharded(self._model))
        return waiting or not self._has_reduced

    def reduce(self) -> None:
        """Reduces what waits, and zeros where nothing does. Collective."""
        for unit in units(self._model):
            unit.set_requires_gradient_sync(True, recurse=False)
        whole: Any = self._model
        whole._get_fsdp_state()._root_post_backward_final_callback()

    def rest(self) -> None:
        """All ranks have reduced: the next micro-step begins."""
        self._has_reduced = False
        self._uses.clear()

    def _note_use(self, state: UnitState, args: Any, kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            self._uses[id(state)] += 1
        return type(state)._register_post_backward_hook(state, args, kwargs)

    def _after_backward(self, state: UnitState, *_: Any) -> None:
        """A unit's gradients are there, or some of them where it is used several times."""
        self._uses[id(state)] -= 1
        if not state.reduce_grads or not _trained(state):
            if _was_whole(state):  # FSDP2 looks for gradients of what it has never gathered
                type(state).post_backward(state)
        elif state in self._order[: self._next]:
            _accumulate(state)
        elif self._uses[id(state)] <= 0:
            self._ready.add(id(state))
            while self._next < len(self._order) and self._is_due(self._order[self._next]):
                self._reduce_next()

    def _is_due(self, state: UnitState) -> bool:
        return id(state) in self._ready or not _trained(state)

    def _reduce_next(self) -> None:
        state = self._order[self._next]
        self._next += 1
        if _trained(state):
            _complete(state)
            type(state).post_backward(state)

    def _finish(self, root: Any) -> None:
        """What FSDP2 does at a backward's end, once the units that are left are reduced."""
        if any(state.reduce_grads for state in self._order):
            while self._next < len(self._order):
                self._reduce_next()
            self._has_reduced = True
        type(root)._root_post_backward_final_callback(root)
        self._next = 0
        self._ready.clear()


def agree(
    model: nn.Module, square: torch.Tensor, step: int, *, order: GatherOrder | None = None
) -> torch.Tensor:
    """The sum of a number over all ranks, which make sure meanwhile that their gradients are of one kind.

    One all-reduce: the number, a word of each rank about its gradients, who has used which parameter, and
    rank 0's gradients of parameters without a dimension. Gradients of what nobody has used are dropped.

    Args:
        square: a number of this rank's, on the device of the group.
        step: of which optimizer step this rank believes the gradients to be.
        order: what this rank has gathered for it, where parameters are gathered for each micro-step.

    Raises:
        JobFailed: ranks hold gradients of other micro-steps or have gathered other units; all ranks raise it,
            and have dropped them.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    if size == 1:
        return square
    trained = [p for p in sharded(model) if p.sharded_param.requires_grad]
    mine = [reductions_of(p) for p in trained]
    words = [0.0] * size
    gathered = order.word if order is not None else 0
    words[rank] = float(zlib.crc32(repr((step, mine, gathered)).encode()))
    used = [float(_is_used(p)) for p in trained]
    scalars = [p.sharded_param for p in trained if is_scalar(p.sharded_param)]
    numbers = [p.grad.item() if p.grad is not None and rank == 0 else 0.0 for p in scalars]
    said = torch.tensor([*words, *used, *numbers], dtype=torch.float64)
    said = torch.cat([square.double().view(1), said.to(square.device)])
    dist.all_reduce(said)
    heard = said.tolist()
    _check(model, heard[1 : size + 1], step, order)
    if order is not None:
        order.rest()
    after = size + 1 + len(trained)
    for parameter, is_used in zip(trained, heard[size + 1 : after], strict=True):
        if not is_used:
            parameter.sharded_param.grad = None
    for scalar, number in zip(scalars, heard[after:], strict=True):
        if scalar.grad is not None:
            local(scalar.grad).fill_(number)
    return said[0]


def reductions_of(parameter: Sharded) -> int:
    """How many reductions a parameter's gradient is the sum of."""
    if parameter.sharded_param.grad is None:
        parameter.reductions, parameter.is_used = 0, False
    return int(getattr(parameter, "reductions", 0))


def has_gradients(model: nn.Module) -> bool:
    """Whether a backward on this rank has a part in the gradients that are reduced."""
    return any(_is_used(parameter) for parameter in sharded(model))


def _is_used(parameter: Sharded) -> bool:
    return reductions_of(parameter) > 0 and parameter.is_used


def _check(model: nn.Module, words: Sequence[float], step: int, order: GatherOrder | None) -> None:
    [(most, _)] = Counter(words).most_common(1)
    apart = [str(rank) for rank, word in enumerate(words) if word != most]
    if apart:
        model.zero_grad()
        if order is not None:
            order.say_where()
        raise JobFailed(
            f"train step {step}",
            found=f"gradients of other micro-steps on rank {', '.join(apart)} than on the other ranks",
            fix="Where a script catches an exception on one rank alone, let that rank neither drop gradients "
            "nor repeat a micro-step; or start the job again from its last checkpoint.",
        )


def _trained(state: UnitState) -> bool:
    return any(parameter.sharded_param.requires_grad for parameter in state.fsdp_params)


def _was_whole(state: UnitState) -> bool:
    return all(hasattr(parameter, "_unsharded_param") for parameter in state.fsdp_params)


def _make_whole_once(state: UnitState) -> bool:
    """Lets FSDP2 make the whole parameters of a unit that was never used, where no other rank is asked."""
    if dist.get_world_size(state.mesh_info.shard_process_group) > 1:
        return False
    state.unshard()
    state.wait_for_unshard()
    state._to_sharded()
    return True


def _complete(state: UnitState) -> None:
    """Gives each trained parameter of a unit a gradient to reduce, all in one type."""
    trained = [p for p in state.fsdp_params if p.sharded_param.requires_grad]
    is_wide = any(p.unsharded_accumulated_grad is not None for p in trained)
    if not _was_whole(state) and not _make_whole_once(state):
        return
    for parameter in trained:
        count = reductions_of(parameter)
        is_used = whole_gradient(parameter) is not None
        parameter.reductions, parameter.is_used = count + 1, is_used or (count > 0 and parameter.is_used)
        if is_used and is_wide:
            parameter.accumulate_unsharded_grad_if_needed()
            parameter.to_accumulated_grad_if_needed()
        elif not is_used and dist.get_world_size() > 1:
            parameter.unsharded_accumulated_grad = torch.zeros_like(
                parameter.unsharded_param,
                dtype=parameter.reduce_dtype if is_wide else None,
                requires_grad=False,
                memory_format=torch.contiguous_format,
            )


def _accumulate(state: UnitState) -> None:
    """Leaves late gradients of a unit that this backward has reduced to the next reduction."""
    state.reduce_grads = False
    try:
        type(state).post_backward(state)
    finally:
        state.reduce_grads = True
