"""The update at the end of an optimizer step, in its phases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from runtime.errors import BadInput
from runtime.train.optim.elementwise import plain_parameters
from runtime.train.optim.gradients import (
    clip_factor,
    local_gradients,
    local_square,
    multiply,
    widen_gradients,
)
from runtime.train.optim.optimizer import needed
from runtime.train.parallel.dims import shard_axis
from runtime.train.parallel.fsdp import drop_gathered
from runtime.train.parallel.guarded import refuse_later_ones
from runtime.train.parallel.reductions import agree, has_gradients
from runtime.train.parallel.scalars import is_scalar
from runtime.train.residence import Residence

logger = logging.getLogger("runtime")


class Updating(Residence):
    """The part of an engine that changes weights."""

    def _update(self, lr_kwargs: Mapping[str, Any]) -> None:
        drop_gathered(self.module)
        parameters = list(self.module.parameters())
        refuse_later_ones(self.module, parameters)
        factor = self._factor(parameters)
        self.overflow = self._norm is not None and not self._norm < float("inf")
        if self.overflow:
            self.skipped_steps += 1
            self._overflows.skip(self)
        else:
            self._change_weights(parameters, factor, lr_kwargs)
        self.scaling.update(overflow=self.overflow)
        self._was_applied = not self.overflow
        self._tell_optimizer()
        self.zero_grad()
        if self._gathered is not None and not self.overflow:
            self._gathered.renew()  # once the gradients have made room
        self.global_steps += 1
        self._data_at_boundary = self._data_now()
        self.tput_timer.note(self.train_batch_size())
        self._report()

    def averaging(self) -> float:
        """What a gradient that was summed over micro-steps is multiplied by, without clipping."""
        averaging = 1.0 / (self.gradient_accumulation_steps() * self.scaling.value)
        return averaging * self.dims.dp.size if self.config.gradient_allreduce_op == "sum" else averaging

    def _factor(self, parameters: Sequence[nn.Parameter]) -> float:
        """What summed gradients are multiplied by: averaging, loss scale and clipping. Notes their norm."""
        averaging = self.averaging()
        limit = self.config.gradient_clipping
        is_norm_wanted = limit > 0 or self._must_be_finite()
        shards = local_gradients(self._counted(parameters)) if is_norm_wanted else []
        square = local_square(shards, self.device)
        total = agree(self.module, square, self.global_steps, order=self._order)
        if not is_norm_wanted:
            return averaging
        is_cut = shard_axis(self._plan.mesh).size > 1
        self._norm = averaging * (total if is_cut else square).sqrt().item()
        return averaging * clip_factor(self._norm, limit)

    def _counted(self, parameters: Sequence[nn.Parameter]) -> Sequence[nn.Parameter]:
        """Those of whose gradients this rank counts what it has: what all ranks have counts once."""
        is_first = shard_axis(self._plan.mesh).is_first
        return parameters if is_first else [p for p in parameters if not is_scalar(p)]

    def _change_weights(
        self, parameters: Sequence[nn.Parameter], factor: float, lr_kwargs: Mapping[str, Any]
    ) -> None:
        self._overflows.in_a_row = 0
        if self._gathered is not None:
            self._gathered.release()
        widen_gradients(parameters)
        multiply(local_gradients(parameters), factor)
        optimizer = needed(self.optimizer, "update weights")
        self._check_at_home()
        with plain_parameters(optimizer, is_cut=shard_axis(self._plan.mesh).size > 1):
            optimizer.step()
        if self.lr_scheduler is not None:
            step: Callable[..., Any] = self.lr_scheduler.step
            step(**lr_kwargs)

    def _tell_optimizer(self) -> None:
        """What scripts read of DeepSpeed's optimizers."""
        told: Any = self.optimizer
        if told is not None:
            told.cur_scale = told.loss_scale = self.scaling.value
            told.overflow = self.overflow

    def _must_be_finite(self) -> bool:
        return not self.config.bf16.enabled or self.config.bf16.check_grad_overflow

    def _check_scaled(self) -> None:
        if self.config.fp16.enabled and not self._scaled_backwards and has_gradients(self.module):
            raise BadInput(
                "step in fp16",
                found="the loss went backward without the loss scale",
                fix="Call engine.backward(loss), or engine.scale(loss).backward().",
            )

    def _report(self) -> None:
        every = self.config.steps_per_print
        if every and self.global_steps % every == 0 and self.dims.dp.is_first:
            rates = ", ".join(f"{rate:.3g}" for rate in self.get_lr())
            logger.info(
                "step %d: lr %s, grad norm %s, skipped %d",
                self.global_steps,
                rates,
                self._norm,
                self.skipped_steps,
            )
