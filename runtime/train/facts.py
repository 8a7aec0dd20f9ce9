"""What a script asks an engine about its training, under the names that the field uses."""

from __future__ import annotations

import torch

from runtime.train.config.schema import Config


class Facts:
    """Answers from the configuration and the optimizer alone."""

    config: Config
    optimizer: torch.optim.Optimizer

    def get_lr(self) -> list[float]:
        """The learning rates in force, one for each parameter group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

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
