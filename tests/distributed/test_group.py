"""The process group over gloo, with two ranks and with one."""

from __future__ import annotations

import pytest

from runtime.comm.group import initialize, process_group, shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed


def sum_of_ranks(topology: Topology) -> tuple[float, bool, bool]:
    import torch
    import torch.distributed as dist

    with process_group(topology, timeout_seconds=20) as group:
        total = torch.tensor([float(topology.rank)], device=group.device)
        dist.all_reduce(total)
    return float(total), group.owned, dist.is_initialized()


def form_twice(topology: Topology) -> tuple[bool, bool]:
    import torch.distributed as dist

    first = initialize(topology, timeout_seconds=20)
    second = initialize(topology, timeout_seconds=20)
    shutdown(second)
    still_there = dist.is_initialized()
    dist.barrier()  # or who is done first leaves while others still connect
    shutdown(first)
    return still_there, dist.is_initialized()


def ask_for_another_size(topology: Topology) -> str:
    import torch.distributed as dist

    group = initialize(topology, timeout_seconds=20)
    try:
        initialize(Topology.single(), timeout_seconds=20)
    except BadInput as e:
        return e.found
    finally:
        dist.barrier()
        shutdown(group)
    return "nothing was raised"


def test_ranks_meet_reduce_and_part(ranks: Ranks) -> None:
    assert ranks(sum_of_ranks, 2) == [(1.0, True, False)] * 2


def test_a_process_on_its_own_needs_no_port(ranks: Ranks) -> None:
    assert ranks(sum_of_ranks, 1) == [(0.0, True, False)]


def test_a_group_that_exists_is_used_and_left_to_its_owner(ranks: Ranks) -> None:
    assert ranks(form_twice, 2) == [(True, False)] * 2


def test_a_group_of_another_size_is_refused(ranks: Ranks) -> None:
    found = ranks(ask_for_another_size, 2)

    assert all("a group of 2 exists already" in line for line in found)


def test_a_rank_that_raises_is_named_by_the_fixture(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match="rank 1: Traceback"):
        ranks(raise_on_rank_1, 2, timeout_seconds=20)


def raise_on_rank_1(topology: Topology) -> None:
    if topology.rank == 1:
        raise ValueError("on purpose")
