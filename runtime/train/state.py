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
    loss_scale: LossScale
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


class Facts:
    """Answers from the configuration and the optimizer alone."""

    config: Config
    optimizer: torch.optim.Optimizer | None

    def get_lr(self) -> list[float]:
        """The learning rates in force, one for each parameter group; none of an engine without optimizer."""
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        return [float(group["lr"]) for group in groups]

    def gradient_accumulation_steps(self) -> int:
        """Micro-steps in an optimizer step."""
        return self.config.gradient_accumulation_steps or 1

    def train_micro_batch_size_per_gpu(self) -> int:
        """Samples of one rank in a micro-step."""
        return self.config.train_micro_batch_size_per_gpu or 1

    def train_batch_size(self) -> int:
        """Samples of all ranks in an optimizer step."""
        return self.config.train_batch_size or 1

    def zero_optimization_stage(self) -> int:
        """The ZeRO stage."""
        return self.config.zero_optimization.stage
