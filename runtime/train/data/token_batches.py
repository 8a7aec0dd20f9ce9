"""Micro-batches by tokens: as many samples as fit, the same batches for every number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from runtime.errors import BadInput
from runtime.train.config.data import DynamicBatching
from runtime.train.data.sharded_loader import Collate, ShardedLoader, epoch_order


def pack(order: Sequence[int], lengths: Sequence[int], config: DynamicBatching) -> list[list[int]]:
    """Cuts an order of samples into batches, each filled as far as the limits allow.

    The last one may have too few samples; it is then filled up with the order's first ones, again.
    """
    limit, most = config.max_tokens or 0, config.max_batch_size or len(order)
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if not batches or len(batches[-1]) == most or (len(batches[-1]) + 1) * longest > limit:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    short = config.min_batch_size - len(batches[-1])
    batches[-1] += [order[number % len(order)] for number in range(short)]
    return batches


class TokenLoader(ShardedLoader):
    """Batches of `training_data` for this rank, of at most `max_tokens` tokens with their padding.

    The batches of an epoch follow from lengths, seed and epoch alone; ranks take them in turn, all the same
    number. A position counts batches over all ranks, so that it can be loaded with another number of ranks.
    """

    unit = "batches"

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        config: DynamicBatching,
        rank: int,
        world_size: int,
        seed: int,
        drop_last: bool = False,
        collate: Collate | None = None,
    ) -> None:
        super().__init__(dataset, micro=1, rank=rank, world_size=world_size, seed=seed, collate=collate)
        self.drop_last = drop_last
        self.lengths = lengths_of(dataset, self.length)
        self._config = config
        self._check(collate)

    def __len__(self) -> int:
        """Micro-steps in this epoch."""
        return self._rounds(len(self._batches()))

    def __iter__(self) -> Iterator[Any]:
        batches = self._batches()
        while self.position < self._rounds(len(batches)) * self.world_size:
            ours = batches[(self.position + self.rank) % len(batches)]  # at the end the first ones, again
            self.position += self.world_size
            yield self.collate([self.dataset[index] for index in ours])
        self.epoch, self.position = self.epoch + 1, 0

    def _rounds(self, batches: int) -> int:
        return batches // self.world_size if self.drop_last else -(-batches // self.world_size)

    def _batches(self) -> list[list[int]]:
        picking = self._config.sequence_picking_order
        order = list(range(self.length))
        if picking != "dataloader":
            order = epoch_order(self.length, self.seed, self.epoch)
        if picking == "seqlen":
            order.sort(key=lambda index: self.lengths[index])
        batches = pack(order, self.lengths, self._config)
        if picking != "seqlen":
            return batches
        return [batches[number] for number in epoch_order(len(batches), self.seed, self.epoch)]

    def _check(self, collate: Collate | None) -> None:
        longest = max(range(self.length), key=lambda index: self.lengths[index])
        least, limit = self._config.min_batch_size, self._config.max_tokens or 0
        if self.lengths[longest] * least > limit:
            raise BadInput(
                f"fill batches with at most {limit} tokens (max_tokens) and {least} samples or more",
                found=f"sample {longest} has {self.lengths[longest]} tokens",
                fix="Cut long samples, raise max_tokens, or lower min_batch_size.",
            )
        if collate is None and len(set(self.lengths)) > 1:
            raise BadInput(
                "fill batches by tokens (dynamic_batching)",
                found="samples of different lengths, and no collate_fn that pads them",
                fix="Pass collate_fn=... to runtime.initialize.",
            )
        if self.drop_last and not len(self):
            raise BadInput(
                "drop what does not fill a round of batches (dataloader_drop_last)",
                found=f"fewer batches than {self.world_size} ranks",
                fix="Give more samples, lower max_tokens, or leave dataloader_drop_last out.",
            )


def lengths_of(dataset: Dataset[Any], count: int) -> list[int]:
    """Tokens of each sample: the dataset's `lengths` where it has them, else every sample is read once."""
    stated = getattr(dataset, "lengths", None)
    found = list(stated) if stated is not None else [_tokens(dataset[index]) for index in range(count)]
    if len(found) != count or not all(length > 0 for length in found):
        raise BadInput(
            "fill batches by tokens (dynamic_batching)",
            found=f"{len(found)} lengths for {count} samples, or a sample without tokens",
            fix="Give training_data one positive length for each sample (`lengths`), and no empty samples.",
        )
    return [int(length) for length in found]


def _tokens(sample: Any) -> int:
    """The first dimension of `input_ids`, or of the first of a sample's parts."""
    if isinstance(sample, Mapping):
        sample = sample["input_ids"] if "input_ids" in sample else next(iter(sample.values()))
    elif isinstance(sample, tuple | list) and sample and not isinstance(sample[0], int | float):
        sample = sample[0]
    return int(sample.shape[0]) if isinstance(sample, torch.Tensor) and sample.ndim else len(sample)
