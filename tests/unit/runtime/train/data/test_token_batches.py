"""Batches by tokens: within their limits, every sample, equal in number on all ranks, resumable elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from runtime.errors import BadInput
from runtime.train.config.data import DynamicBatching
from runtime.train.data.sharded_loader import ShardedLoader, TokenLoader, lengths_of, pack

LENGTHS = [3, 9, 1, 4, 4, 7, 2, 10, 5, 6, 1, 8, 3, 3, 2, 5, 9, 1, 4, 6, 7, 2, 8]


class Texts(Dataset[torch.Tensor]):
    def __init__(self, lengths: list[int]) -> None:
        self.texts = [torch.full((length,), number) for number, length in enumerate(lengths)]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.texts[index]


def settings_of(order: str = "seqlen", **limits: Any) -> DynamicBatching:
    limits = {"max_tokens": 24, "min_batch_size": 2, "max_batch_size": 6, **limits}
    return DynamicBatching(enabled=True, sequence_picking_order=order, **limits)  # type: ignore[arg-type]


def loaders(world_size: int, order: str = "seqlen", **options: Any) -> list[TokenLoader]:
    return [
        TokenLoader(
            Texts(LENGTHS),
            config=settings_of(order),
            rank=rank,
            world_size=world_size,
            seed=5,
            collate=lambda samples: [int(sample[0]) for sample in samples],
            **options,
        )
        for rank in range(world_size)
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=60), st.integers(1, 4), st.integers(4, 9))
def test_batches_keep_their_limits_and_lose_no_sample(lengths: list[int], least: int, most: int) -> None:
    config = settings_of(max_tokens=40, min_batch_size=least, max_batch_size=most)

    batches = pack(range(len(lengths)), lengths, config)

    assert {index for batch in batches for index in batch} == set(range(len(lengths)))
    for batch in batches:
        assert least <= len(batch) <= most
        assert len(batch) * max(lengths[index] for index in batch) <= 40
    assert [index for batch in batches[:-1] for index in batch] == list(range(sum(map(len, batches[:-1]))))


@pytest.mark.parametrize("order", ["dataloader", "random", "seqlen"])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_rank_takes_the_same_number_and_together_every_sample(order: str, world_size: int) -> None:
    epochs = [list(loader) for loader in loaders(world_size, order)]

    assert len({len(batches) for batches in epochs}) == 1
    assert len(epochs[0]) == len(loaders(world_size, order)[0])
    assert {sample for batches in epochs for batch in batches for sample in batch} == set(range(len(LENGTHS)))


def test_dropping_what_is_left_repeats_no_batch() -> None:
    epochs = [list(loader) for loader in loaders(4, drop_last=True)]

    taken = Counter(tuple(batch) for batches in epochs for batch in batches)
    assert set(taken.values()) == {1}
    assert len({len(batches) for batches in epochs}) == 1


def test_epochs_differ_and_repeat_with_the_seed() -> None:
    loader, again = loaders(1)[0], loaders(1)[0]

    first, second = list(loader), list(loader)

    assert first != second
    assert [list(again), list(again)] == [first, second]


def test_samples_of_like_length_waste_fewer_tokens_than_a_random_order() -> None:
    lengths = [1 + (number * 37) % 64 for number in range(2000)]
    limits = {"max_tokens": 1024, "min_batch_size": 1, "max_batch_size": None}

    def batches(order: str) -> int:
        config = settings_of(order, **limits)
        return len(TokenLoader(Texts(lengths), config=config, rank=0, world_size=1, seed=0, collate=list))

    assert batches("seqlen") < 0.7 * batches("random")


def test_a_position_continues_on_another_number_of_ranks() -> None:
    alone = loaders(1)[0].forever()
    whole = [next(alone) for _ in range(12)]
    before = loaders(2)
    streams = [loader.forever() for loader in before]
    taken = [next(stream) for _ in range(2) for stream in streams]

    after = loaders(1)[0]
    after.load_state_dict(before[0].state_dict())
    rest = after.forever()

    assert taken + [next(rest) for _ in range(8)] == whole


def test_a_position_in_batches_is_not_taken_for_one_in_samples() -> None:
    state = loaders(1)[0].state_dict()

    with pytest.raises(BadInput, match="training_data is now taken by samples"):
        ShardedLoader(Texts([1]), micro=1, rank=0, world_size=1, seed=0).load_state_dict(state)


def build(lengths: list[int], **options: Any) -> None:
    options = {"config": settings_of(), "collate": list, **options}
    TokenLoader(Texts(lengths), rank=0, world_size=2, seed=0, **options)


def test_what_cannot_be_filled_is_refused() -> None:
    with pytest.raises(BadInput, match="sample 1 has 13 tokens"):
        build([1, 13])
    with pytest.raises(BadInput, match="no collate_fn that pads"):
        build([1, 2], collate=None)
    with pytest.raises(BadInput, match="a sample without tokens"):
        build([0, 2])
    with pytest.raises(BadInput, match="fewer batches than 2 ranks"):
        build([1, 1], drop_last=True)


@pytest.mark.parametrize(
    "sample",
    [
        torch.zeros(3),
        {"attention_mask": [1], "input_ids": [1, 2, 3]},
        (torch.zeros(3, 2), 1),
        [1, 2, 3],
        {"text": "abc"},
    ],
)
def test_tokens_are_counted_where_a_sample_has_them(sample: Any) -> None:
    class One(Dataset[Any]):
        def __getitem__(self, index: int) -> Any:
            return sample

    assert lengths_of(One(), 1) == [3]


def test_lengths_that_the_dataset_states_are_believed() -> None:
    class Stated(Texts):
        lengths = (1, 2)

        def __getitem__(self, index: int) -> torch.Tensor:
            raise AssertionError("read to be counted")

    assert lengths_of(Stated([5, 5]), 2) == [1, 2]
