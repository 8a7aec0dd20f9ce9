"""Whole optimizer steps and evaluations from batches, of the engine's own data or of an iterator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from runtime.train.data.sharded_loader import ShardedLoader, call_with, endless, loss_of
from runtime.train.parallel.dims import ParallelDims


class Fed(Protocol):
    """What `Feeding` needs of the engine that it is a part of."""

    device: torch.device
    dims: ParallelDims
    training_dataloader: ShardedLoader | None
    _samples: Iterator[Any] | None

    def __call__(self, *inputs: Any, **named: Any) -> Any: ...
    def gradient_accumulation_steps(self) -> int: ...
    def backward(self, loss: torch.Tensor) -> torch.Tensor: ...
    def step(self) -> None: ...


class Feeding:
    """The part of an engine that takes batches."""

    _samples: Iterator[Any] | None

    def train_batch(self: Fed, data_iter: Iterator[Any] | None = None) -> torch.Tensor:
        """One optimizer step from the next micro-batches; returns the mean loss over them and all ranks.

        The model's output is the loss, or has it as `.loss` or as its first element.
        """
        if data_iter is None:
            self._samples = self._samples or endless(self.training_dataloader)
        samples = data_iter or self._samples
        assert samples is not None
        steps = self.gradient_accumulation_steps()
        total = torch.zeros((), device=self.device)
        for _ in range(steps):
            loss = loss_of(call_with(self, self.device, next(samples)))
            self.backward(loss)
            self.step()
            total += loss.detach().float() / steps
        self.dims.dp.all_reduce(total)
        return total / self.dims.dp.size
