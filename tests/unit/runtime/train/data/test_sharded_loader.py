"""The order of samples does not depend on the number of ranks, loses none, continues on another number."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from runtime.errors import BadInput
from runtime.train.data.sharded_loader import ShardedLoader


class Numbers(Dataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def loaders(count: int, *, micro: int, world_size: int, **options: Any) -> list[ShardedLoader]:
    return [
        ShardedLoader(
            Numbers(count), micro=micro, rank=rank, world_size=world_size, seed=5, collate=list, **options
        )
        for rank in range(world_size)
    ]


def steps_of(count: int, *, micro: int, world_size: int, accumulation: int, steps: int) -> list[Counter[int]]:
    """The samples of each optimizer step, over all ranks."""
    streams = [loader.forever() for loader in loaders(count, micro=micro, world_size=world_size)]
    return [
        Counter(sample for _ in range(accumulation) for stream in streams for sample in next(stream))
        for _ in range(steps)
    ]


@pytest.mark.parametrize(
    ("micro", "world_size", "accumulation"), [(4, 2, 1), (2, 2, 2), (2, 4, 1), (1, 4, 2), (1, 1, 8)]
)
def test_a_step_takes_the_same_samples_for_every_split(
    micro: int, world_size: int, accumulation: int
) -> None:
    alone = steps_of(64, micro=8, world_size=1, accumulation=1, steps=20)

    split = steps_of(64, micro=micro, world_size=world_size, accumulation=accumulation, steps=20)

    assert split == alone


@pytest.mark.parametrize("count", [1, 7, 8, 9, 23])
def test_an_epoch_takes_every_sample_and_every_rank_takes_part(count: int) -> None:
    epochs = [list(loader) for loader in loaders(count, micro=2, world_size=4)]

    assert {sample for epoch in epochs for batch in epoch for sample in batch} == set(range(count))
    assert len({len(epoch) for epoch in epochs}) == 1
    assert all(batch for epoch in epochs for batch in epoch)
    assert all(len(epoch) == len(loaders(count, micro=2, world_size=4)[0]) for epoch in epochs)


def test_what_does_not_fill_a_batch_is_dropped_on_request() -> None:
    epochs = [list(loader) for loader in loaders(23, micro=2, world_size=4, drop_last=True)]

    taken = [sample for epoch in epochs for batch in epoch for sample in batch]

    assert len(taken) == len(set(taken)) == 16


def test_epochs_differ_and_repeat_with_the_seed() -> None:
    loader, again = loaders(32, micro=32, world_size=1)[0], loaders(32, micro=32, world_size=1)[0]

    first, second = list(loader), list(loader)

    assert first != second
    assert [list(again), list(again)] == [first, second]


def test_a_position_continues_on_another_number_of_ranks() -> None:
    whole = steps_of(64, micro=8, world_size=1, accumulation=1, steps=12)
    before = loaders(64, micro=4, world_size=2)
    streams = [loader.forever() for loader in before]
    for _ in range(5):
        for stream in streams:
            next(stream)

    after = loaders(64, micro=2, world_size=4)
    for loader in after:
        loader.load_state_dict(before[0].state_dict())
    streams = [loader.forever() for loader in after]
    rest = [Counter(sample for stream in streams for sample in next(stream)) for _ in range(7)]

    assert rest == whole[5:]


def test_batches_are_collated_as_pytorch_does() -> None:
    loader = ShardedLoader(Numbers(4), micro=4, rank=0, world_size=1, seed=0)

    assert next(iter(loader)).dtype == torch.int64


class Endless(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize(("dataset", "said"), [(Endless(), "has no length"), (Numbers(0), "it is empty")])
def test_data_that_cannot_be_sharded_is_refused(dataset: Dataset[int], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        ShardedLoader(dataset, micro=1, rank=0, world_size=1, seed=0)


def test_too_few_samples_for_one_batch_are_refused_when_the_rest_is_dropped() -> None:
    with pytest.raises(BadInput, match="3 samples, fewer than one batch of 1 x 4 ranks"):
        loaders(3, micro=1, world_size=4, drop_last=True)
