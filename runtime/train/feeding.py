"""Whole optimizer steps and evaluations from batches, of the engine's own data or of an iterator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from runtime.errors import BadInput
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
    def eval(self) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...

    @property
    def training(self) -> bool: ...


class Feeding:
    """The part of an engine that takes batches."""

    _samples: Iterator[Any] | None

    def eval_batch(
        self: Fed,
        data_iter: Iterator[Any],
        return_logits: bool = False,
        compute_loss: bool = True,
        reduce_output: str = "avg",
        bcast_loss: bool = True,
        num_micro_batches: int | None = None,
    ) -> torch.Tensor:
        """The mean loss of the next micro-batches over all ranks, without gradients, in evaluation mode.

        As many as an optimizer step has, or `num_micro_batches`. Collective.

        Raises:
            BadInput: outputs other than the mean loss are asked for, which a pipeline's last stage has.
        """
        if return_logits or not compute_loss or reduce_output != "avg" or not bcast_loss:
            raise BadInput(
                "evaluate a batch (eval_batch)",
                found="outputs other than the mean loss of all ranks are asked for",
                fix="Call engine(batch) within torch.no_grad() for a model's outputs.",
            )
        steps = num_micro_batches or self.gradient_accumulation_steps()
        total, was_training = torch.zeros((), device=self.device), self.training
        self.eval()
        try:
            with torch.no_grad():
                for _ in range(steps):
                    total += loss_of(call_with(self, self.device, next(data_iter))).float() / steps
        finally:
            self.train(was_training)
        self.dims.dp.all_reduce(total)
        return total / self.dims.dp.size

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
