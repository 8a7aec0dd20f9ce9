"""A training as others see it: what checkpoints and skipped steps need of it, and what a script asks."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from runtime.comm.group import Group
from runtime.train.config.schema import Config
from runtime.train.optim.precision import LossScale
from runtime.train.parallel.dims import ParallelDims


class LearningRates(Protocol):
    """What a training needs of a learning-rate scheduler."""

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainingState(Protocol):
    """A training at the boundary after an optimizer step.

    `run` names the training through all its resumptions, `session` this process's part of it.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LearningRates | None
    config: Config
    group: Group
    dims: ParallelDims
    device: torch.device
    scaling: LossScale
    global_steps: int
    skipped_steps: int
    session: str
    run: str

    def zero_optimization_stage(self) -> int:
        """The ZeRO stage."""
        ...

    def train_batch_size(self) -> int:
        """Samples of all ranks in an optimizer step."""
        ...

    def data_position(self) -> dict[str, int] | None:
        """Where the data stood after the last optimizer step."""
        ...

    def resume(self, *, global_steps: int, skipped_steps: int, data: dict[str, int] | None) -> None:
        """Goes to the boundary after an optimizer step of an earlier run."""
        ...
