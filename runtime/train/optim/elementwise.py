"""Whether an optimizer can update parameters of which each rank has a part.

Adam and its like compute each element by itself. Adafactor takes means over rows and columns, Lamb a norm,
Muon a product of matrices, others sums over all parameters: of parts they would come out otherwise, without
a word. What torch has is known by its class. Every other one is tried on small tensors, whole and in parts.
Where every rank has all of each parameter (stage 0, one rank) any optimizer will do, with plain parameters.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput
from runtime.train.offload.shards import local

_ELEMENTWISE = (
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
)
_STEPS, _ROWS, _COLUMNS = 3, 4, 6
_OWN = ("param_groups", "state", "step")


def check_optimizer(optimizer: torch.optim.Optimizer, *, is_cut: bool) -> None:
    """Makes sure that an optimizer can update a sharded model's parameters as it would a plain one's.

    Args:
        is_cut: whether each rank has a part of them.

    Raises:
        BadInput: it cannot, or cannot be tried.
    """
    name = type(optimizer).__name__
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise BadInput(
            f"train with {name}",
            found="an optimizer that calls the forward and the backward by itself (a closure)",
            fix="Take AdamW, SGD or another one whose step() needs nothing.",
        )
    if type(optimizer) in _ELEMENTWISE or not is_cut:
        return
    for group in optimizer.param_groups:
        for shape in ((_ROWS, _COLUMNS), (_ROWS,)):
            try:
                whole, parts = _tried(optimizer, group, shape)
            except Exception as error:
                if len(shape) == 1:  # as those of matrices alone
                    continue
                raise _refused(name, f"it cannot be tried on a small tensor ({error})") from error
            if not torch.allclose(whole, torch.cat(parts), rtol=1e-4, atol=1e-7):
                raise _refused(name, "it computes with whole parameters, of which each rank has a part")


@contextmanager
def plain_parameters(optimizer: torch.optim.Optimizer, *, is_cut: bool) -> Iterator[None]:
    """Within it an optimizer has plain parameters, of the same memory, where each rank has all of them.

    DTensor cannot do what optimizers do that are not elementwise, not even on one rank.
    """
    if is_cut or type(optimizer) in _ELEMENTWISE or getattr(optimizer, "of_shards", False):
        yield
        return
    groups = optimizer.param_groups
    held = [group["params"] for group in groups]
    for group in groups:
        group["params"] = [_plain(optimizer, parameter) for parameter in group["params"]]
    try:
        yield
    finally:
        for group, parameters in zip(groups, held, strict=True):
            for plain, parameter in zip(group["params"], parameters, strict=True):
                if plain in optimizer.state:
                    optimizer.state[parameter] = optimizer.state.pop(plain)
                if plain.data_ptr() != local(parameter).data_ptr():
                    local(parameter).copy_(plain.detach())
            group["params"] = parameters


def _plain(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> nn.Parameter:
    plain = nn.Parameter(local(parameter), parameter.requires_grad)
    plain.grad = local(parameter.grad) if parameter.grad is not None else None
    if parameter in optimizer.state:
        states = optimizer.state.pop(parameter)
        optimizer.state[plain] = {k: local(v) if isinstance(v, DTensor) else v for k, v in states.items()}
    return plain


def _refused(name: str, found: str) -> BadInput:
    return BadInput(
        f"update sharded parameters with {name}",
        found=found,
        fix="Take AdamW, SGD or another one that computes each element by itself, or train with stage 0.",
    )


def _tried(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], shape: Sequence[int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A tensor after some steps; and its two halves, each after as many steps of an optimizer of its own."""
    generator = torch.Generator().manual_seed(0)
    start, *gradients = (torch.randn(*shape, generator=generator) for _ in range(_STEPS + 1))
    # Rows differ in size, so that a mean over them is another one in each half.
    gradients = [
        gradient * (1 + torch.arange(_ROWS).view(-1, *[1] * (len(shape) - 1))) for gradient in gradients
    ]
    device = next((p.device for p in group["params"]), torch.device("cpu"))
    half = _ROWS // 2
    whole, first, second = (
        _stepped(optimizer, group, start[rows].to(device), [g[rows].to(device) for g in gradients])
        for rows in (slice(None), slice(half), slice(half, None))
    )
    return whole, [first, second]


def _stepped(
    optimizer: torch.optim.Optimizer,
    group: dict[str, Any],
    start: torch.Tensor,
    gradients: list[torch.Tensor],
) -> torch.Tensor:
    trial = copy.copy(optimizer)
    # Without what scripts and schedules have hung on it, and without states of its own.
    trial.__dict__ = {
        name: OrderedDict() if "_hook" in name else copy.deepcopy(value)
        for name, value in vars(optimizer).items()
        if name not in _OWN and getattr(value, "__self__", None) is None
    }
    parameter = nn.Parameter(start.clone())
    options = {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
    if options.get("lr") == 0:  # at the beginning of a warm-up
        options["lr"] = 0.1
    trial.param_groups = [{**options, "params": [parameter]}]
    trial.state = defaultdict(dict)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        type(trial).step(trial)
    return parameter.detach()
