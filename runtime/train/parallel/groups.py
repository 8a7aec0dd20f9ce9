"""Which ranks do what together: all of them are data-parallel, and each is a group of its own in the rest."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch.distributed as dist


def get_data_parallel_group() -> Any:
    """All ranks of the job."""
    return dist.group.WORLD


def get_data_parallel_world_size() -> int:
    """How many they are."""
    return dist.get_world_size()


def get_data_parallel_rank() -> int:
    """This rank among them."""
    return dist.get_rank()


def rank_or_first() -> int:
    """This rank in the job; 0 before there is one."""
    return dist.get_rank() if dist.is_initialized() else 0


@cache
def own_group() -> Any:
    """This rank alone. Collective, the first time: every rank makes every rank's."""
    made = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
    return made[dist.get_rank()]


def size_of_own() -> int:
    """Ranks in `own_group`."""
    return 1


def rank_in_own() -> int:
    """This rank in `own_group`."""
    return 0


def get_all_ranks_from_group(group: Any = None) -> list[int]:
    """The ranks of a group, of the job where None."""
    return dist.get_process_group_ranks(group or dist.group.WORLD)
