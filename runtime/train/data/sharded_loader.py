"""Which samples a rank takes: in an order that does not depend on the number of ranks and can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from runtime.errors import BadInput

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
