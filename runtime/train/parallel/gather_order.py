"""Which units a rank gathers, and in which order: ranks that gather different ones mix their numbers.

In stage 3 a rank asks nobody before it gathers a unit. Ranks that use other parts of a model meet in one
collective, and where the parts are equally large nothing fails: each computes with halves of two parameters.
What was gathered is therefore compared after each forward without gradients and before each update.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import nn

from runtime.comm.exchange import all_gather_json
from runtime.errors import JobFailed
from runtime.train.parallel.fsdp import UnitState, units


class GatherOrder:
    """What this rank has gathered since ranks last compared it.

    Args:
        model: sharded; its units are named as it names its modules.
        group: the ranks that together hold one copy of the parameters.
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup, device: torch.device) -> None:
        self._group, self._device = group, device
        self.names: list[str] = []
        self.gathered: list[int] = []
        names = {id(module): name for name, module in model.named_modules()}
        for unit in units(model):
            state: UnitState = unit._get_fsdp_state()._fsdp_param_group
            if state is not None:
                state.unshard = partial(self._unshard, len(self.names), state, state.unshard)
                self.names.append(names[id(unit)])

    def _unshard(
        self, number: int, state: UnitState, gather: Callable[[bool], None], async_op: bool = False
    ) -> None:
        if state._all_gather_result is None and not state.is_unsharded:
            self.gathered.append(number)
        gather(async_op)

    @property
    def word(self) -> int:
        """A number that names it."""
        return zlib.crc32(repr(self.gathered).encode())

    def rest(self) -> None:
        """Ranks have compared it."""
        self.gathered.clear()

    def compare(self) -> None:
        """Makes sure that all ranks have gathered the same. Collective.

        Raises:
            JobFailed: they have not; all ranks raise it.
        """
        bounds = torch.tensor([self.word, -self.word], dtype=torch.float64, device=self._device)
        dist.all_reduce(bounds, op=dist.ReduceOp.MAX, group=self._group)
        largest, smallest = bounds.tolist()
        if largest != -smallest:
            self.say_where()
        self.rest()

    def say_where(self) -> None:
        """Names the first unit that ranks have not gathered alike, if there is one. Collective.

        Raises:
            JobFailed: there is one.
        """
        said = all_gather_json(self.gathered, self._group)
        ranks = dist.get_process_group_ranks(self._group)
        self.rest()
        refuse_apart(self.names, dict(zip(ranks, said, strict=True)))


def refuse_apart(names: Sequence[str], said: Mapping[int, Any], cause: Exception | None = None) -> None:
    """Names the first unit that ranks have not gathered alike.

    Args:
        names: of the units, by number.
        said: the numbers of units that each rank has gathered, in order.

    Raises:
        JobFailed: there is one.
    """
    for place in range(max(map(len, said.values()), default=0)):
        there = {rank: row[place] if place < len(row) else None for rank, row in said.items()}
        if len(set(there.values())) > 1:
            _fail(names, there, cause)


def _fail(names: Sequence[str], there: Mapping[int, object], cause: Exception | None) -> NoReturn:
    first = min(there)
    other = next(rank for rank in there if there[rank] != there[first])
    unit, instead = (_name(names, there[rank]) for rank in (first, other))
    raise JobFailed(
        "compute with parameters of all ranks (stage 3)",
        found=f"rank {first} used {unit} where rank {other} used {instead}; what they have computed since "
        "the last comparison is mixed, and no parameter was changed by it",
        fix="Let every rank use the same parts in the same order: add `0 * part(x).sum()` where one has "
        "nothing to do. Or pass blocks=[CLASS] to runtime.initialize with the class of the module that holds "
        "all of them, or train with stage 2, in which ranks may use other parts.",
    ) from cause


def _name(names: Sequence[str], number: object) -> str:
    if number is None:
        return "nothing more"
    if type(number) is not int or not 0 <= number < len(names):  # another rank's word
        return "a unit that this rank does not have"
    return names[number] or "the model's own parameters"
