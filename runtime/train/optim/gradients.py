"""Sharded gradients: norm and scale, the type they wait in, ways to drop them, those that are not finite."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed import ReduceOp

from runtime.errors import JobFailed
from runtime.train.offload.shards import like, local
from runtime.train.parallel.fsdp import Sharded, holders, sharded

if TYPE_CHECKING:
    from runtime.train.state import TrainingState

# Weak on both sides: a parameter's record holds its modules.
_held: weakref.WeakKeyDictionary[nn.Module, list[weakref.ref[Sharded]]] = weakref.WeakKeyDictionary()
logger = logging.getLogger("runtime")
ALLOWED = 20  # in a row, where the loss scale cannot be lowered any more


def local_gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """This rank's shards of the gradients that exist, without empty ones."""
    shards = [local(p.grad) for p in parameters if p.grad is not None]
    return [shard for shard in shards if shard.numel()]


def local_square(shards: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The square of the 2-norm over this rank's shards, fp32. Not finite if any gradient is not.

    Shards may live in host memory while `device` is where the number is wanted.
    """
    square = torch.zeros((), dtype=torch.float32, device=device)
    for kind in {shard.device for shard in shards}:
        norms = torch._foreach_norm([s for s in shards if s.device == kind], 2, dtype=torch.float32)
        square += torch.stack(norms).square().sum().to(device)
    return square


def clip_factor(norm: float, limit: float) -> float:
    """What gradients of this norm are multiplied by so that it does not exceed the limit; 0 is no limit."""
    return min(1.0, limit / (norm + 1e-6)) if limit > 0 else 1.0


def multiply(shards: list[torch.Tensor], factor: float) -> None:
    """Scales gradients in place; a factor of 1 costs nothing."""
    if factor != 1.0 and shards:
        torch._foreach_mul_(shards, factor)


def first_not_finite(named: Iterable[tuple[str, nn.Parameter]]) -> str | None:
    """The first parameter, in the model's order, whose gradient on this rank is not finite."""
    for name, parameter in named:
        if parameter.grad is not None and not torch.isfinite(local(parameter.grad)).all():
            return name
    return None


def narrow_gradients(parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
    """Keeps the gradients of sharded parameters in this type, once FSDP2 has reduced them.

    FSDP2 leaves shards in fp32, as the parameters are. ZeRO-2 counts 2 bytes for them: in that type they wait
    for their step's other micro-steps, until the step widens them.
    """

    def narrow(parameter: torch.Tensor) -> None:
        _convert(parameter, dtype)

    for parameter in parameters:
        # torch before 2.10 takes no gradient of another type than its parameter's.
        if parameter.requires_grad and hasattr(parameter, "grad_dtype"):
            parameter.grad_dtype = None
            parameter.register_post_accumulate_grad_hook(narrow)  # type: ignore[no-untyped-call]


def widen_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Makes gradients the parameters' type again, one by one."""
    for parameter in parameters:
        _convert(parameter, parameter.dtype)


@torch.no_grad()
def _convert(parameter: torch.Tensor, dtype: torch.dtype) -> None:
    if parameter.grad is not None and parameter.grad.dtype != dtype:
        parameter.grad = like(parameter, local(parameter.grad).to(dtype))


def follow_modules(model: nn.Module) -> None:
    """Makes `zero_grad` of the model and of each of its modules drop what waits of their parameters.

    All of it, also what FSDP2 keeps where nobody else looks.
    """
    for parameter in sharded(model):
        for module, _ in holders(parameter):
            _held.setdefault(module, []).append(weakref.ref(parameter))
    for module in model.modules():
        # A partial is copied with its module, as a closure would not be.
        module.zero_grad = partial(_zero_module, module)  # type: ignore[method-assign]


def follow_optimizer(optimizer: torch.optim.Optimizer | None, model: nn.Module) -> None:
    """Makes the optimizer's `zero_grad`, if there is one, drop what waits of its parameters."""
    if optimizer is None:
        return
    plain = optimizer.zero_grad

    def zero_grad(set_to_none: bool = True) -> None:
        plain(set_to_none)
        ours = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        _drop((p for p in sharded(model) if id(p.sharded_param) in ours), set_to_none)

    optimizer.zero_grad = zero_grad  # type: ignore[method-assign]


def _zero_module(module: nn.Module, set_to_none: bool = True) -> None:
    type(module).zero_grad(module, set_to_none)
    found = [ref() for part in module.modules() for ref in _held.get(part, ())]
    _drop((parameter for parameter in found if parameter is not None), set_to_none)


def _drop(parameters: Iterable[Sharded], set_to_none: bool) -> None:
    for parameter in parameters:
        _clear(parameter.sharded_param, "grad", set_to_none)
        _clear(parameter, "unsharded_accumulated_grad", set_to_none)
        if hasattr(parameter, "_unsharded_param"):
            _clear(parameter._unsharded_param, "grad", set_to_none)


def _clear(owner: Any, name: str, set_to_none: bool) -> None:
    gradient = getattr(owner, name)
    if gradient is None:
        return
    if set_to_none:
        setattr(owner, name, None)
    else:
        gradient.detach().zero_()


class Overflows:
    """Counts skipped steps that lowering the loss scale cannot explain."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def skip(self, training: TrainingState) -> None:
        """Takes note of a skipped step. Every rank calls it, since all know the same norm.

        Raises:
            JobFailed: it is one too many; names the parameter and the samples.
        """
        scale = training.scaling
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
