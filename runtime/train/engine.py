"""The training engine: forward, backward, and a step that clips, updates, zeroes, advances the schedule."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from runtime.comm.group import Group
from runtime.errors import BadInput
from runtime.train.checkpoint.agree import from_first
from runtime.train.checkpoint.save import Saves
from runtime.train.config.schema import Config
from runtime.train.data.sharded_loader import ShardedLoader, call_with, endless, loss_of
from runtime.train.optim.gradients import (
    Overflows,
    clip_factor,
    follow_modules,
    follow_optimizer,
    local_gradients,
    local_square,
    multiply,
    narrow_gradients,
    widen_gradients,
)
from runtime.train.optim.optimizer import needed
from runtime.train.optim.precision import LossScale, waiting_dtype
from runtime.train.parallel.blocks import compile_blocks, wanted_compilation
from runtime.train.parallel.cut_off import CutOffs
from runtime.train.parallel.dims import ParallelDims, shard_axis, shard_group
from runtime.train.parallel.fsdp import (
    follow_forwards,
    in_backward,
    leave_forward,
    put_shards_back,
    settle_root,
)
from runtime.train.parallel.gather_order import GatherOrder
from runtime.train.parallel.gathered import Gathered
from runtime.train.parallel.guarded import give_whole, guard
from runtime.train.parallel.reductions import Reductions, agree, has_gradients
from runtime.train.parallel.shard import ShardPlan, drop_gathered, units
from runtime.train.saving import Saving
from runtime.train.state import Facts, LearningRates

logger = logging.getLogger("runtime")


class Engine(Facts, Saving):
    """Trains a sharded model; made by `runtime.initialize`.

    One without optimizer (a reference or reward model) computes forwards and nothing else.
    A micro-step is `engine(batch)`, `engine.backward(loss)`, `engine.step()`; every
    `gradient_accumulation_steps` micro-steps make one optimizer step. Attributes of the model can be read
    through the engine.
    """

    def __init__(
        self,
        *,
        module: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        lr_scheduler: LearningRates | None,
        training_dataloader: ShardedLoader | None,
        config: Config,
        plan: ShardPlan,
        group: Group,
        dims: ParallelDims,
        blocks: Sequence[nn.Module] = (),
        gather_now: bool = True,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.training_dataloader = training_dataloader
        self.config = config
        self.group = group
        self.dims = dims
        self.device = group.device
        self.loss_scale = LossScale.from_config(config.fp16)
        self.global_steps = 0
        self.skipped_steps = 0
        self.micro_steps = 0
        self.overflow = False
        self._plan = plan
        self._blocks = blocks
        self._compiled = config.compile.enabled
        self._norm: float | None = None
        self._overflows = Overflows()
        self._boundary_set: bool | None = None
        self._depth_without_sync = 0
        self._scaled_backwards = 0
        self._samples: Iterator[Any] | None = None
        self._data_at_boundary = self._data_now()
        self.session = from_first(secrets.token_hex(4))
        self.run = self.session
        self._saves = Saves()
        self._gathered = self._take_over(gather_now)

    # -- a micro-step -------------------------------------------------------------------------------------

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The model's forward; floating inputs are cast to the compute type."""
        self._prepare_units()
        try:
            return self.module(*inputs, **named)
        except BaseException as error:
            if not in_backward():  # activation checkpointing ends a recomputation there by an exception
                self._cut_offs.note_forward()
                leave_forward(self.module)
                put_shards_back(self.module)
                if self._gathered is not None:
                    self._gathered.note_cut_off()
                if isinstance(error, RuntimeError):
                    self._cut_offs.explain(error)
            raise

    forward = __call__

    def backward(self, loss: torch.Tensor) -> torch.Tensor:
        """Backward of a loss that is a mean over the micro-batch; returns the loss as it was given.

        Gradients of an optimizer step are averaged over its micro-steps and ranks when `step` updates.
        """
        scaled = self.scale(loss)
        with self._cut_offs.explained():
            scaled.backward()  # type: ignore[no-untyped-call]
        return loss

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the loss scale, for those who call `.backward()` themselves in fp16."""
        needed(self.optimizer, "send a loss backward")
        self.end_cut_off()
        self._scaled_backwards += 1
        return loss if self.loss_scale.value == 1.0 else loss.float() * self.loss_scale.value

    def step(self) -> None:
        """Ends a micro-step; at the boundary clips, updates, zeroes gradients and advances the schedule.

        Raises:
            BadInput: it is called within `no_sync`, or the engine has no optimizer.
            JobFailed: a rank has gradients of other micro-steps, or was cut off alone. All ranks raise it.
        """
        needed(self.optimizer, "end a micro-step (engine.step)")
        if self._depth_without_sync:
            raise BadInput(
                "end a micro-step (engine.step)",
                found="it is within engine.no_sync, where micro-steps have no end",
                fix="Call step() after the `with engine.no_sync():` block.",
            )
        self._cut_offs.end(with_step=True)
        is_boundary = self.is_gradient_accumulation_boundary()
        with self._cut_offs.explained():
            if is_boundary or self._plan.sync_every_micro_step:
                self._reduce_once()
            if is_boundary:
                self._check_scaled()
            self.micro_steps += 1
            self._boundary_set = None
            if is_boundary:
                self._scaled_backwards = 0
                self._update()

    def train_batch(self, data_iter: Iterator[Any] | None = None) -> torch.Tensor:
        """One optimizer step from the next micro-batches; returns the mean loss over them and all ranks.

        The model's output is the loss, or has it as `.loss` or as its first element.
        """
        samples = data_iter or self._own_samples()
        steps = self.gradient_accumulation_steps()
        total = torch.zeros((), device=self.device)
        for _ in range(steps):
            loss = loss_of(call_with(self, self.device, next(samples)))
            self.backward(loss)
            self.step()
            total += loss.detach().float() / steps
        self.dims.dp.all_reduce(total)
        return total / self.dims.dp.size

    # -- questions ----------------------------------------------------------------------------------------

    def is_gradient_accumulation_boundary(self) -> bool:
        """Whether the micro-step at hand is the last one of its optimizer step."""
        if self._depth_without_sync:
            return False
        if self._boundary_set is not None:
            return self._boundary_set
        return (self.micro_steps + 1) % self.gradient_accumulation_steps() == 0

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        """Says so for the micro-step at hand, before its backward, instead of counting."""
        self._boundary_set = is_boundary
        self._prepare_units()

    def get_global_grad_norm(self) -> float | None:
        """The norm of the last step's gradients before clipping; None where no step needed it."""
        return self._norm

    def train(self, mode: bool = True) -> Engine:
        """Puts the model into training mode, or out of it."""
        self.module.train(mode)
        return self

    def eval(self) -> Engine:
        """Puts the model into evaluation mode."""
        return self.train(False)

    def compile(self, backend: str = "inductor", compile_kwargs: Mapping[str, Any] | None = None) -> None:
        """torch.compile of every transformer block, which the key `compile` does from the start.

        Args:
            compile_kwargs: `mode` and `dynamic` of torch.compile.
        """
        wanted = wanted_compilation(backend, compile_kwargs or {})
        if not self._compiled:
            compile_blocks(self._blocks, wanted, self.device)
        self._compiled = True

    def zero_grad(self) -> None:
        """Drops the gradients, also those of micro-steps whose optimizer step has not come."""
        self.module.zero_grad(set_to_none=True)

    def __getattr__(self, name: str) -> Any:
        if name == "module":  # not set yet
            raise AttributeError(name)
        return getattr(self.module, name)

    def data_position(self) -> dict[str, int] | None:
        """Where the data stood after the last optimizer step."""
        return self._data_at_boundary

    def resume(self, *, global_steps: int, skipped_steps: int, data: dict[str, int] | None) -> None:
        """Goes to the boundary after an optimizer step of an earlier run."""
        self.global_steps, self.skipped_steps = global_steps, skipped_steps
        self.micro_steps = global_steps * self.gradient_accumulation_steps()
        self._samples = None
        if self.training_dataloader is not None and data is not None:
            self.training_dataloader.load_state_dict(data)
        self._data_at_boundary = self._data_now()

    def end_cut_off(self) -> None:
        """Ends a pass that an exception has cut off. Collective, if there is one; see `CutOffs.end`."""
        self._cut_offs.end()

    def begin_step(self) -> None:
        """Begins an optimizer step anew with weights that were loaded: drops what micro-steps have left."""
        self.zero_grad()
        self.micro_steps -= self.micro_steps % self.gradient_accumulation_steps()
        self._boundary_set = None
        self._scaled_backwards = 0
        if self._gathered is not None:
            self._gathered.renew()

    def _data_now(self) -> dict[str, int] | None:
        return self.training_dataloader.state_dict() if self.training_dataloader is not None else None

    # -- the update, in its phases ------------------------------------------------------------------------

    def _take_over(self, gather_now: bool) -> Gathered | None:
        """Settles with FSDP2 who keeps what: gradients, whole parameters, and what of them goes out."""
        module, plan = self.module, self._plan
        settle_root(module)
        self._reductions = Reductions(module)
        group = shard_group(plan.mesh)
        is_cut = shard_axis(plan.mesh).size > 1
        gathers = plan.gather_every_micro_step
        self._order = GatherOrder(module, group, self.device) if is_cut and gathers else None
        self._cut_offs = CutOffs(module, self.session, gathers=gathers, order=self._order)
        follow_modules(module)
        follow_optimizer(self.optimizer, module)
        dtype = waiting_dtype(self.config)
        if plan.sync_every_micro_step and self.gradient_accumulation_steps() > 1:
            narrow_gradients(module.parameters(), dtype)
        keeps = is_cut and not gathers
        gathered = Gathered(module, group) if keeps else None
        guard(module, self.optimizer, plan.mesh)
        give_whole(module, gathered, is_here=keeps or not is_cut)
        # Last, so that its hooks come before those of what is gathered.
        compare = self._order.compare if self._order is not None else None
        follow_forwards(module, self._cut_offs.end, compare=compare)
        if gathered is not None and gather_now:
            gathered.renew()
            gathered.settle()
        return gathered

    def _prepare_units(self) -> None:
        """Tells FSDP2 what to do after the coming backward: reduce, or accumulate whole gradients.

        Where it reduces, shards take the place of whole parameters, and their gradients are seen there.
        """
        sync = self.is_gradient_accumulation_boundary() or self._plan.sync_every_micro_step
        for unit in units(self.module):
            unit.set_requires_gradient_sync(sync, recurse=False)
            unit.set_reshard_after_backward(sync, recurse=False)

    def _reduce_once(self) -> None:
        """Does what other ranks have done in this micro-step, where a forward or a backward was missing."""
        if self._reductions.is_due:
            self._cut_offs.note_missing()
            self._cut_offs.end()
            if self._gathered is not None:
                self._gathered.agree_once()
            self._reductions.reduce()
        self._reductions.rest()
        if self._gathered is not None:
            self._gathered.rest()

    def _update(self) -> None:
        drop_gathered(self.module)
        factor = self._factor()
        self.overflow = self._norm is not None and not self._norm < float("inf")
        if self.overflow:
            self.skipped_steps += 1
            self._overflows.skip(self)
        else:
            self._apply(factor)
        self.loss_scale.update(overflow=self.overflow)
        self.zero_grad()
        if self._gathered is not None and not self.overflow:
            self._gathered.renew()  # once the gradients have made room
        self.global_steps += 1
        self._data_at_boundary = self._data_now()
        self._report()

    def _factor(self) -> float:
        """What summed gradients are multiplied by: averaging, loss scale and clipping. Notes their norm."""
        averaging = 1.0 / (self.gradient_accumulation_steps() * self.loss_scale.value)
        if self.config.gradient_allreduce_op == "sum":
            averaging *= self.dims.dp.size
        limit = self.config.gradient_clipping
        is_norm_wanted = limit > 0 or self._must_be_finite()
        shards = local_gradients(self.module.parameters()) if is_norm_wanted else []
        square = local_square(shards, self.device)
        total = agree(self.module, square, self.global_steps, order=self._order)
        if not is_norm_wanted:
            return averaging
        is_cut = shard_axis(self._plan.mesh).size > 1
        self._norm = averaging * (total if is_cut else square).sqrt().item()
        return averaging * clip_factor(self._norm, limit)

    def _apply(self, factor: float) -> None:
        self._overflows.in_a_row = 0
        if self._gathered is not None:
            self._gathered.release()
        widen_gradients(self.module.parameters())
        multiply(local_gradients(self.module.parameters()), factor)
        needed(self.optimizer, "update weights").step()
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()

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

    # -- feeding ------------------------------------------------------------------------------------------

    def _own_samples(self) -> Iterator[Any]:
        if self._samples is None:
            self._samples = endless(self.training_dataloader)
        return self._samples

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backwards within accumulate gradients, which the next one after it is added to; no `step` within.

        Stages 0 and 1 do not communicate within it. Stages 2 and 3 reduce each time, to the same gradient.
        """
        self._depth_without_sync += 1
        self._prepare_units()
        try:
            yield
        finally:
            self._depth_without_sync -= 1
            self._prepare_units()
