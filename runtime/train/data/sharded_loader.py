"""Which samples a rank takes: in an order that does not depend on the number of ranks and can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from runtime.errors import BadInput
from runtime.train.config.data import DynamicBatching

Collate = Callable[[list[Any]], Any]


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """The permutation of one epoch; the same on every rank."""
    generator = torch.Generator().manual_seed(seed + epoch)
    order: list[int] = torch.randperm(length, generator=generator).tolist()
    return order


def share(order: Sequence[int], start: int, micro: int, rank: int, world_size: int) -> list[int]:
    """The samples of one rank in the micro-step whose global batch begins at `start`.

    Over the micro-steps of an optimizer step these are the same samples for every number of ranks. What is
    left at the end of an epoch is split evenly; ranks that would get nothing take the last samples again,
    so that every rank takes part in each collective.
    """
    batch = order[start : start + micro * world_size]
    each = min(micro, -(-len(batch) // world_size))
    ours = batch[rank * each : (rank + 1) * each]
    return list(ours or batch[-each:])


class ShardedLoader:
    """Batches of `training_data` for this rank.

    Iterating ends with the epoch; the next iteration begins the next one. `state_dict` holds the position in
    samples over all ranks, so that it can be loaded with another number of ranks.
    """

    unit = "samples"  # what a position counts

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        micro: int,
        rank: int,
        world_size: int,
        seed: int,
        drop_last: bool = False,
        collate: Collate | None = None,
    ) -> None:
        self.dataset = dataset
        self.micro, self.rank, self.world_size = micro, rank, world_size
        self.seed, self.drop_last = seed, drop_last
        self.collate: Collate = collate or default_collate
        self.length = _length(dataset)
        self.epoch = self.position = 0
        if drop_last and self.length < micro * world_size:
            raise BadInput(
                "drop what does not fill a batch (dataloader_drop_last)",
                found=f"{self.length} samples, fewer than one batch of {micro} x {world_size} ranks",
                fix="Give more samples, or leave dataloader_drop_last out.",
            )

    def __len__(self) -> int:
        """Micro-steps in an epoch."""
        size = self.micro * self.world_size
        return self.length // size if self.drop_last else -(-self.length // size)

    def __iter__(self) -> Iterator[Any]:
        order = epoch_order(self.length, self.seed, self.epoch)
        size = self.micro * self.world_size
        while self.position + (size if self.drop_last else 1) <= self.length:
            indices = share(order, self.position, self.micro, self.rank, self.world_size)
            self.position += size
            yield self.collate([self.dataset[index] for index in indices])
        self.epoch, self.position = self.epoch + 1, 0

    def forever(self) -> Iterator[Any]:
        """Epoch after epoch."""
        while True:
            yield from self

    def state_dict(self) -> dict[str, int]:
        """The position, in samples over all ranks (with token batches: in batches, marked so)."""
        marked = {"batches": 1} if self.unit == "batches" else {}
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed, **marked}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues where a state was taken, on any number of ranks."""
        counted = "batches" if state.get("batches") else "samples"
        if counted != self.unit:
            raise BadInput(
                f"continue where {state['position']} {counted} were taken",
                found=f"training_data is now taken by {self.unit}",
                fix="Keep dynamic_batching as it was, or load with a loader of your own.",
            )
        self.epoch, self.position, self.seed = state["epoch"], state["position"], state["seed"]


def _length(dataset: Dataset[Any]) -> int:
    try:
        length = len(dataset)  # type: ignore[arg-type]
    except TypeError as e:
        raise BadInput(
            "shard training_data over the ranks",
            found=f"{type(dataset).__name__} has no length",
            fix="Give a map-style dataset, or iterate over your own loader.",
        ) from e
    if length == 0:
        raise BadInput("shard training_data over the ranks", found="it is empty", fix="Give samples.")
    return length


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on the device, through dicts, lists and tuples."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def loss_of(output: Any) -> torch.Tensor:
    """The loss that a model returned: as it is, as `.loss`, or as the first element.

    Raises:
        BadInput: it returned none.
    """
    loss = getattr(output, "loss", output[0] if isinstance(output, tuple | list) else output)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise BadInput(
            "train a batch",
            found=f"the model returned a {type(loss).__name__}, which is no loss",
            fix="Return the loss, or call engine(batch), engine.backward(loss) and engine.step().",
        )
    return loss


def call_with(model: Callable[..., Any], device: torch.device, batch: Any) -> Any:
    """What a model gives for a batch on its device: a mapping holds named inputs, a tuple or list several."""
    batch = to_device(batch, device)
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def endless(loader: ShardedLoader | None) -> Iterator[Any]:
    """The batches of one epoch after another.

    Raises:
        BadInput: there is no loader.
    """
    if loader is None:
        raise BadInput(
            "train a batch",
            found="no iterator was given and runtime.initialize had no training_data",
            fix="Call train_batch(iterator), or pass training_data.",
        )
    return loader.forever()


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
