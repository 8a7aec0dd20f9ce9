"""Steps that are skipped because a gradient is not finite: said, bounded, and explained."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch.distributed import ReduceOp

from runtime.errors import JobFailed
from runtime.train.optim.gradients import first_not_finite

if TYPE_CHECKING:
    from runtime.train.state import TrainingState

logger = logging.getLogger("runtime")
ALLOWED = 20  # in a row, where the loss scale cannot be lowered any more


class Overflows:
    """Counts skipped steps that lowering the loss scale cannot explain."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def skip(self, training: TrainingState) -> None:
        """Takes note of a skipped step. Every rank calls it, since all know the same norm.

        Raises:
            JobFailed: it is one too many; names the parameter and the samples.
        """
        scale = training.loss_scale
        if scale.dynamic and scale.value > scale.smallest:
            logger.info("step %d skipped: overflow at loss scale %g", training.global_steps, scale.value)
            return
        self.in_a_row += 1
        culprit = _culprit(training)
        logger.warning("step %d skipped: the gradient of %s is not finite", training.global_steps, culprit)
        if self.in_a_row >= ALLOWED:
            size = training.train_batch_size()
            first = training.global_steps * size
            raise JobFailed(
                f"train step {training.global_steps}",
                found=f"gradients were not finite {self.in_a_row} times in a row, now in {culprit} "
                f"with samples {first} to {first + size - 1}",
                fix="Use bf16 (no loss scale), lower the learning rate, or look at that batch.",
            )


def _culprit(training: TrainingState) -> str:
    """The first parameter in the model's order whose gradient is not finite on any rank."""
    names = [name for name, _ in training.module.named_parameters()]
    found = first_not_finite(training.module.named_parameters())
    index = torch.tensor(names.index(found) if found else len(names), device=training.device)
    training.dims.dp.all_reduce(index, ReduceOp.MIN)
    return names[int(index)] if int(index) < len(names) else "no parameter (the norm itself overflowed)"
