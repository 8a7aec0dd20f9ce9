"""The training engine: forward, backward, and a step that clips, updates, zeroes, advances the schedule."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakMethod, ref

import torch
from torch import nn

from runtime.comm.group import Group
from runtime.errors import BadInput
from runtime.train.checkpoint.agree import from_first
from runtime.train.checkpoint.save import Saves
from runtime.train.config.schema import Config
from runtime.train.data.sharded_loader import ShardedLoader
from runtime.train.feeding import Feeding
from runtime.train.optim.gradients import Overflows, follow_modules, follow_optimizer, narrow_gradients
from runtime.train.optim.optimizer import needed
from runtime.train.optim.precision import LossScale, waiting_dtype
from runtime.train.parallel.blocks import compile_blocks, wanted_compilation
from runtime.train.parallel.calls import Calls
from runtime.train.parallel.cut_off import CutOffs
from runtime.train.parallel.dims import ParallelDims, shard_axis, shard_group
from runtime.train.parallel.fsdp import follow_forwards, settle_root, units
from runtime.train.parallel.gather_order import GatherOrder
from runtime.train.parallel.gathered import Gathered
from runtime.train.parallel.guarded import Trained, give_whole, guard
from runtime.train.parallel.reductions import Reductions
from runtime.train.parallel.shard import ShardPlan
from runtime.train.parallel.whole import number
from runtime.train.saving import Saving
from runtime.train.state import LearningRates
from runtime.train.throughput import Throughput
from runtime.train.updating import Updating


class Engine(Updating, Saving, Feeding):
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
        super().__init__(module)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.training_dataloader = training_dataloader
        self.config = config
        self.group = group
        self.dims = dims
        self.device = group.device
        self.scaling = LossScale.from_config(config.fp16)
        self.global_steps = 0
        self.skipped_steps = 0
        self.micro_steps = 0
        self.overflow = self._was_applied = False
        self.tput_timer = Throughput()
        self._counted_from = self._steps_before = self._samples_before = 0
        self._plan = plan
        self._blocks = blocks
        self._compiled = config.compile.enabled
        self._norm: float | None = None
        self._overflows = Overflows()
        self._boundary_set: bool | None = None
        self._depth_without_sync = 0
        self._synced: bool | None = None
        self._scaled_backwards = 0
        self._samples = None
        self._data_at_boundary = self._data_now()
        self.session = from_first(secrets.token_hex(4))
        self.run = self.session
        self._saves = Saves()
        self._gathered = self._take_over(gather_now)
        self._tell_optimizer()

    # -- a micro-step -------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The model's forward; floating inputs are cast to the compute type."""
        self._prepare_units()
        try:
            return self.module(*inputs, **named)
        except BaseException as error:
            self._cut_offs.leave_forward(error, self._gathered)
            raise

    def backward(
        self, loss: torch.Tensor, retain_graph: bool = False, scale_wrt_gas: bool = True
    ) -> torch.Tensor:
        """Backward of a loss that is a mean over the micro-batch; returns the loss as it was given.

        Gradients of an optimizer step are averaged over its micro-steps and ranks when `step` updates.

        Args:
            scale_wrt_gas: where false, the loss is this micro-step's share of the step's loss already.
        """
        scaled = self.scale(loss if scale_wrt_gas else loss * self.gradient_accumulation_steps())
        with self._cut_offs.explained():
            scaled.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
        return loss

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the loss scale, for those who call `.backward()` themselves in fp16."""
        needed(self.optimizer, "send a loss backward")
        self.end_cut_off()
        self._prepare_units()  # a script may have called the module, or a part of it
        self._scaled_backwards += 1
        return loss if self.scaling.value == 1.0 else loss.float() * self.scaling.value

    def step(self, lr_kwargs: Mapping[str, Any] | None = None) -> None:
        """Ends a micro-step; at the boundary clips, updates, zeroes gradients and advances the schedule.

        Args:
            lr_kwargs: what the schedule's step is called with.

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
        self._check_at_home()
        self._was_applied = False
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
                self._update(lr_kwargs or {})

    # -- questions ----------------------------------------------------------------------------------------

    def is_gradient_accumulation_boundary(self) -> bool:
        """Whether the micro-step at hand is the last one of its optimizer step."""
        if self._depth_without_sync:
            return False
        if self._boundary_set is not None:
            return self._boundary_set
        return (self.micro_steps - self._counted_from + 1) % self.gradient_accumulation_steps() == 0

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        """Says so for the micro-step at hand, before its backward, instead of counting."""
        self._boundary_set = is_boundary
        self._prepare_units()

    def set_train_batch_size(self, train_batch_size: int) -> None:
        """Another number of micro-steps in an optimizer step, from the next one on; micro-batches stay.

        Raises:
            BadInput: micro-batches of all ranks do not make it up, or an optimizer step is under way.
        """
        of_all = self.train_micro_batch_size_per_gpu() * self.dims.dp.size
        under_way = (self.micro_steps - self._counted_from) % self.gradient_accumulation_steps()
        if train_batch_size <= 0 or train_batch_size % of_all or under_way:
            raise BadInput(
                f"train with batches of {train_batch_size}",
                found=f"{under_way} micro-steps of a step are taken already"
                if under_way
                else f"micro-batches of {of_all} over all ranks",
                fix="Call it after an optimizer step." if under_way else f"Give a multiple of {of_all}.",
            )
        self._samples_before, self._steps_before = self.global_samples, self.global_steps
        self._counted_from = self.micro_steps
        steps = train_batch_size // of_all
        sizes = {"train_batch_size": train_batch_size, "gradient_accumulation_steps": steps}
        self.config = self.config.model_copy(update=sizes)
        self._prepare_units()

    def set_train_micro_batch_size(self, micro_batch_size: int) -> None:
        """Says that the script's micro-batches have another size from now on; micro-steps of a step stay.

        Raises:
            BadInput: the engine's own data makes the micro-batches.
        """
        if self.training_dataloader is not None or micro_batch_size <= 0:
            raise BadInput(
                f"train with micro-batches of {micro_batch_size}",
                found="training_data, whose batches runtime.initialize has sized"
                if micro_batch_size > 0
                else "no size",
                fix="Feed batches of the size that you want, or write it into the configuration.",
            )
        self._samples_before, self._steps_before = self.global_samples, self.global_steps
        whole = micro_batch_size * self.gradient_accumulation_steps() * self.dims.dp.size
        sizes = {"train_batch_size": whole, "train_micro_batch_size_per_gpu": micro_batch_size}
        self.config = self.config.model_copy(update=sizes)

    def follow_method(self, module: nn.Module, name: str) -> None:
        """Makes a method of the model or of a part of it run with whole parameters, as a forward does.

        Methods whose code names parameters of their module do so from the start. Every rank calls them.
        """
        self._calls.follow(module, name)

    def compile(self, backend: str = "inductor", compile_kwargs: Mapping[str, Any] | None = None) -> None:
        """torch.compile of every transformer block, which the key `compile` does from the start.

        Args:
            compile_kwargs: `mode` and `dynamic` of torch.compile.
        """
        wanted = wanted_compilation(backend, compile_kwargs or {})
        if not self._compiled:
            self._calls.forget(self._blocks)
            compile_blocks(self._blocks, wanted, self.device)
        self._compiled = True

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, also those of micro-steps whose optimizer step has not come."""
        self.module.zero_grad(set_to_none=set_to_none)

    def resume(self, *, global_steps: int, skipped_steps: int, data: dict[str, int] | None) -> None:
        """Goes to the boundary after an optimizer step of an earlier run."""
        self.global_steps, self.skipped_steps = global_steps, skipped_steps
        self.micro_steps = global_steps * self.gradient_accumulation_steps()
        self._counted_from = self._steps_before = self._samples_before = 0
        self._samples = None
        if self.training_dataloader is not None and data is not None:
            self.training_dataloader.load_state_dict(data)
        self._data_at_boundary = self._data_now()

    def _end_saves(self) -> None:
        self.wait_for_checkpoint()

    def end_cut_off(self) -> None:
        """Ends a pass that an exception has cut off. Collective, if there is one; see `CutOffs.end`."""
        self._cut_offs.end()

    def begin_step(self) -> None:
        """Begins an optimizer step anew with weights that were loaded: drops what micro-steps have left."""
        self.zero_grad()
        self.micro_steps -= (self.micro_steps - self._counted_from) % self.gradient_accumulation_steps()
        self._boundary_set = None
        self._scaled_backwards = 0
        self._tell_optimizer()
        if self._gathered is not None:
            self._gathered.renew()

    # -- with FSDP2 ---------------------------------------------------------------------------------------

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
        averaging = partial(_call, WeakMethod(self.averaging))
        optimizer = ref(self.optimizer) if self.optimizer is not None else _nothing
        trained = Trained(optimizer=optimizer, averaging=averaging)
        give_whole(module, gathered, is_here=keeps or not is_cut, training=trained)
        if gathers:
            number(module.parameters())
        # Last, so that its hooks come before those of what is gathered.
        compare = self._order.compare if self._order is not None else None
        after = follow_forwards(module, self._cut_offs.end, compare=compare)
        prepare = WeakMethod(self._prepare_units)  # the model may outlive its engine
        self._calls = Calls(module, self._cut_offs, gathered, prepare=prepare, after=after)
        if self._compiled:
            self._calls.forget(self._blocks)
        if gathered is not None and gather_now:
            gathered.renew()
            gathered.settle()
        return gathered

    def _prepare_units(self) -> None:
        """Tells FSDP2 what to do after the coming backward: reduce, or accumulate whole gradients.

        Where it reduces, shards take the place of whole parameters, and their gradients are seen there.
        """
        sync = self.is_gradient_accumulation_boundary() or self._plan.sync_every_micro_step
        if sync == self._synced:
            return
        for unit in units(self.module):
            unit.set_requires_gradient_sync(sync, recurse=False)
            unit.set_reshard_after_backward(sync, recurse=False)
        self._synced = sync

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


def _call(method: WeakMethod[Callable[[], float]]) -> float:
    """What an engine says, as long as there is one."""
    found = method()
    return found() if found is not None else 1.0


def _nothing() -> None:
    """The optimizer of an engine that has none."""
