"""What an engine holds, and what it answers from its configuration and optimizer alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from runtime.comm.group import Group
from runtime.errors import BadInput
from runtime.train.as_module import AsModule
from runtime.train.config.schema import Config
from runtime.train.data.sharded_loader import ShardedLoader
from runtime.train.optim.gradients import Overflows
from runtime.train.optim.optimizer import needed
from runtime.train.optim.precision import LossScale, compute_dtype, waiting_dtype
from runtime.train.parallel.dims import ParallelDims
from runtime.train.parallel.gather_order import GatherOrder
from runtime.train.parallel.gathered import Gathered
from runtime.train.parallel.shard import ShardPlan
from runtime.train.state import LearningRates
from runtime.train.throughput import Throughput


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
    tput_timer: Throughput
    _compiled: bool
    _was_applied: bool
    _steps_before: int
    _samples_before: int

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

    @property
    def global_samples(self) -> int:
        """Samples of all ranks in the optimizer steps so far."""
        return self._samples_before + (self.global_steps - self._steps_before) * self.train_batch_size()

    @property
    def global_rank(self) -> int:
        """This rank among all of the job, which are all data-parallel."""
        return self.dims.dp.rank

    @property
    def local_rank(self) -> int:
        """This rank among those of its node."""
        return self.group.topology.local_rank

    @property
    def world_size(self) -> int:
        """Ranks of the job."""
        return self.dims.dp.size

    @property
    def dp_world_size(self) -> int:
        """Ranks among which the data is shared."""
        return self.dims.dp.size

    def get_mom(self) -> list[Any]:
        """The momentum or the betas in force, one for each parameter group."""
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        return [group.get("momentum", group.get("betas", 0.0)) for group in groups]

    def set_lr(self, lr: float | Sequence[float]) -> None:
        """Sets the learning rates of the next step, one for all groups or one for each; a schedule goes on.

        Raises:
            BadInput: there is no optimizer, or there are not as many groups.
        """
        groups = needed(self.optimizer, "set a learning rate").param_groups
        rates = [lr] * len(groups) if isinstance(lr, int | float) else list(lr)
        if len(rates) != len(groups):
            raise BadInput(
                "set learning rates",
                found=f"{len(rates)} of them for {len(groups)} parameter groups",
                fix="Give one number, or one for each group.",
            )
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def optimizer_name(self) -> str | None:
        """The class of the optimizer."""
        return type(self.optimizer).__name__ if self.optimizer is not None else None

    def scheduler_name(self) -> str | None:
        """The class of the learning-rate scheduler."""
        return type(self.lr_scheduler).__name__ if self.lr_scheduler is not None else None

    def was_step_applied(self) -> bool:
        """Whether the latest `step` has changed weights: no micro-step before the last one, no overflow."""
        return self._was_applied

    def fp16_enabled(self) -> bool:
        """Whether it computes in fp16."""
        return self.config.fp16.enabled

    def bfloat16_enabled(self) -> bool:
        """Whether it computes in bf16."""
        return self.config.bf16.enabled

    def get_data_types(self) -> tuple[torch.dtype, torch.dtype]:
        """The types in which it computes, and in which gradient shards wait."""
        return compute_dtype(self.config), waiting_dtype(self.config)

    def loss_scale(self) -> float:
        """The loss scale of the configuration; 0 is a dynamic one, whose value is `optimizer.cur_scale`."""
        return self.config.fp16.loss_scale

    def dynamic_loss_scale(self) -> bool:
        """Whether the loss scale follows overflows."""
        return self.scaling.dynamic

    def gradient_clipping(self) -> float:
        """The norm that gradients are clipped to; 0 is none."""
        return self.config.gradient_clipping

    def steps_per_print(self) -> int | None:
        """Every how many steps a line is logged."""
        return self.config.steps_per_print

    def wall_clock_breakdown(self) -> bool:
        """Whether times of parts of a step are logged, which is not implemented."""
        return False

    def get_batch_info(self) -> tuple[int, int, int]:
        """Samples of all ranks in a step, of one rank in a micro-step, and micro-steps in a step."""
        return (
            self.train_batch_size(),
            self.train_micro_batch_size_per_gpu(),
            self.gradient_accumulation_steps(),
        )

    @property
    def cur_scale(self) -> float:
        """The loss scale in force; 1 where there is none."""
        return self.scaling.value

    @property
    def is_compiled(self) -> bool:
        """Whether transformer blocks are compiled."""
        return self._compiled

    @property
    def data_parallel_group(self) -> dist.ProcessGroup | None:
        """The ranks among which the data is shared."""
        return self.dims.dp.group or dist.group.WORLD

    def zero_optimization(self) -> bool:
        """Whether anything is sharded."""
        return self.zero_optimization_stage() > 0

    def zero_offload_optimizer(self) -> bool:
        """Whether the optimizer's states live elsewhere than on the device."""
        return self.config.zero_optimization.offload_optimizer.device != "none"

    def zero_gather_16bit_weights_on_model_save(self) -> bool:
        """Whether the configuration wants whole weights with a saved model; `save_16bit_model` has them."""
        return self.config.zero_optimization.stage3_gather_16bit_weights_on_model_save

    def data_position(self) -> dict[str, int] | None:
        """Where the data stood after the last optimizer step."""
        return self._data_at_boundary

    def _data_now(self) -> dict[str, int] | None:
        return self.training_dataloader.state_dict() if self.training_dataloader is not None else None
