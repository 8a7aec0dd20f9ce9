"""What an engine holds, and what it answers from its configuration and optimizer alone."""

from __future__ import annotations

import torch

from runtime.comm.group import Group
from runtime.train.as_module import AsModule
from runtime.train.config.schema import Config
from runtime.train.data.sharded_loader import ShardedLoader
from runtime.train.optim.gradients import Overflows
from runtime.train.optim.precision import LossScale
from runtime.train.parallel.dims import ParallelDims
from runtime.train.parallel.gather_order import GatherOrder
from runtime.train.parallel.gathered import Gathered
from runtime.train.parallel.shard import ShardPlan
from runtime.train.state import LearningRates


class Facts(AsModule):
    """Answers from the configuration and the optimizer alone."""

    config: Config
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LearningRates | None
    training_dataloader: ShardedLoader | None
    group: Group
    dims: ParallelDims
    device: torch.device
    scaling: LossScale
    global_steps: int
    skipped_steps: int
    micro_steps: int
    overflow: bool
    _plan: ShardPlan
    _norm: float | None
    _overflows: Overflows
    _gathered: Gathered | None
    _order: GatherOrder | None
    _scaled_backwards: int
    _data_at_boundary: dict[str, int] | None

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

    def get_global_grad_norm(self) -> float | None:
        """The norm of the last step's gradients before clipping; None where no step needed it."""
        return self._norm

    def data_position(self) -> dict[str, int] | None:
        """Where the data stood after the last optimizer step."""
        return self._data_at_boundary

    def _data_now(self) -> dict[str, int] | None:
        return self.training_dataloader.state_dict() if self.training_dataloader is not None else None
