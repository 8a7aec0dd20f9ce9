"""Each operation of the smoke test on three ranks: right contents pass, and wrong ones do not."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.comm.group import process_group
from runtime.smoke.collectives.pattern import Pattern
from runtime.smoke.collectives.plan import Operation
from runtime.smoke.collectives.worker import Trial
from runtime.topology import Topology
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed

OPERATIONS = [
    Operation(number=0, step="broadcast", size=40_000, source=1),
    Operation(number=0, step="ring", size=40_000, target=1),
    Operation(number=0, step="ring", size=40_000, target=-1),
    Operation(number=0, step="barrier", size=0),
    Operation(number=0, step="all-gather", size=39_996),
    Operation(number=0, step="reduce-scatter", size=39_996),
    Operation(number=0, step="all-to-all", size=39_996),
    Operation(number=0, step="all-reduce", size=40_000),
]


def try_all(topology: Topology) -> list[dict[str, Any]]:
    with process_group(topology, timeout_seconds=30) as group:
        pattern = Pattern(elements=10_000, world_size=topology.world_size, device="cpu")
        return [Trial(group, pattern, operation, lambda _round: None).run() for operation in OPERATIONS]


def try_with_a_flipped_bit(topology: Topology) -> dict[str, Any]:
    """Rank 1's network card changes element 123 of what an all-reduce gives it."""
    import torch.distributed as dist

    honest = dist.all_reduce

    def corrupt(tensor: Any, *arguments: Any, **options: Any) -> None:
        honest(tensor, *arguments, **options)
        if topology.rank == 1 and tensor.numel() == 10_000:
            tensor[123] += 1

    dist.all_reduce = corrupt
    with process_group(topology, timeout_seconds=30) as group:
        pattern = Pattern(elements=10_000, world_size=topology.world_size, device="cpu")
        return Trial(group, pattern, OPERATIONS[-1], lambda _round: None).run()


def test_right_contents_pass_and_every_rank_measures_the_same_number_of_rounds(ranks: Ranks) -> None:
    by_rank = ranks(try_all, 3)

    for number, operation in enumerate(OPERATIONS):
        results = [results[number] for results in by_rank]
        assert [result["wrong"] for result in results] == [None] * 3, operation
        assert len({len(result["seconds"]) for result in results}) == 1, operation
        assert min(min(result["seconds"]) for result in results) > 0, operation


def test_a_flipped_bit_is_found_on_its_rank_alone(ranks: Ranks) -> None:
    wrong = [result["wrong"] for result in ranks(try_with_a_flipped_bit, 3)]

    assert (wrong[0], wrong[2]) == (None, None)
    assert (wrong[1]["count"], wrong[1]["index"]) == (1, 123)
    assert wrong[1]["found"] - wrong[1]["expected"] == 1
