"""Parts of a model that a script calls by themselves, outside of the model's forward.

FSDP2 makes a unit's parameters whole for the unit's own forward. A head, an encoder or PEFT's inner model is
none, and would compute with shards. Called while no forward is under way, it runs as a forward of the unit
that it belongs to: parameters are whole, gradients are reduced as that unit's. So do methods that read
parameters by name (CLIP's `encode_text`); what they change in place, they change in the shards.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any, cast
from weakref import WeakMethod

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils._pytree import tree_flatten

from runtime.errors import BadInput
from runtime.train.offload.shards import local
from runtime.train.parallel.cut_off import CutOffs
from runtime.train.parallel.fsdp import UnitState, in_backward
from runtime.train.parallel.gathered import Gathered
from runtime.train.parallel.scalars import is_scalar


class Part:
    """A module's forward, or another method of it, with whole parameters whoever calls it."""

    def __init__(self, module: nn.Module, name: str, calls: Calls, unit: nn.Module, *, keeps: bool) -> None:
        self._before = module.__dict__.get(name)
        self.forward: Callable[..., Any] = getattr(module, name)
        self.__wrapped__ = self.forward  # by which name inspect.signature asks for it
        self._calls, self._unit, self._keeps = calls, unit, keeps
        setattr(module, name, self)

    def restore(self, module: nn.Module, name: str) -> None:
        """Gives the module its own method back."""
        if self._before is None:
            del module.__dict__[name]
        else:
            module.__dict__[name] = self._before

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling() or self._calls.are_inside:
            return self.forward(*inputs, **named)
        return self._calls.run(self._unit, self.forward, inputs, named, keeps=self._keeps)


class Calls:
    """The calls of one sharded model's parts.

    Args:
        gathered: what is kept whole between forwards, if anything.
        prepare: what comes before a forward that a script calls.
        after: what comes after a unit's forward.
    """

    def __init__(
        self,
        model: nn.Module,
        cut_offs: CutOffs,
        gathered: Gathered | None,
        *,
        prepare: WeakMethod[Callable[[], None]],
        after: Callable[[nn.Module], None],
    ) -> None:
        self._context = cast(FSDPModule, model)._get_fsdp_state()._state_ctx
        self._cut_offs, self._gathered = cut_offs, gathered
        self._prepare, self._after = prepare, after
        self._units = dict(_owned(model, model))
        for module, unit in self._units.items():
            if module is not unit and _computes(module):
                Part(module, "forward", self, unit, keeps=False)
            for name in _reading(module):
                self.follow(module, name)

    @property
    def are_inside(self) -> bool:
        """Whether a forward or a backward is under way, in which parameters are whole already."""
        return self._context.iter_forward_root is not None or in_backward()

    def follow(self, module: nn.Module, name: str) -> None:
        """Makes a method of a module run with whole parameters.

        Raises:
            BadInput: the module is none of the model's, or has no such method.
        """
        method = getattr(module, name, None)
        if module not in self._units or not callable(method):
            raise BadInput(
                f"follow {type(module).__name__}.{name}",
                found="no such method" if module in self._units else "a module that is not of this model",
                fix="Name a method of the model that runtime.initialize was given, or of a part of it.",
            )
        if not isinstance(method, Part):
            Part(module, name, self, self._units[module], keeps=True)

    def forget(self, blocks: Iterable[nn.Module]) -> None:
        """Leaves the parts of compiled blocks as they are, which would be traced each by itself."""
        for part in (part for block in blocks for part in block.modules()):
            for name, value in list(part.__dict__.items()):
                if isinstance(value, Part):
                    value.restore(part, name)

    def run(
        self,
        unit: nn.Module,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        named: dict[str, Any],
        *,
        keeps: bool,
    ) -> Any:
        """Runs a function as the unit's forward. Collective where parameters are gathered for each one."""
        if (prepare := self._prepare()) is not None:
            prepare()
        self._cut_offs.end()
        if self._gathered is not None:
            # Where nothing goes in, rank 0 may be asking for a number that it logs.
            self._gathered.before_forward(unit, alone=keeps and not _tensors((inputs, named)))
        state = cast(FSDPModule, unit)._get_fsdp_state()
        try:
            inputs, named = state._pre_forward(unit, inputs, named)
            output = function(*inputs, **named)
            if keeps and state._fsdp_param_group is not None:
                _keep_changes(state._fsdp_param_group)
            output = state._post_forward(unit, inputs, output)
        except BaseException as error:
            self._cut_offs.leave_forward(error, self._gathered)
            raise
        is_graded = any(one.requires_grad for one in _tensors(output))
        with torch.set_grad_enabled(torch.is_grad_enabled() and (is_graded or not keeps)):
            self._after(unit)
        return output


def _tensors(values: Any) -> list[torch.Tensor]:
    return [one for one in tree_flatten(values)[0] if isinstance(one, torch.Tensor)]


def _owned(module: nn.Module, unit: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Every module with the unit that its parameters travel with, which it may be itself."""
    seen: set[nn.Module] = set()

    def walk(module: nn.Module, unit: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
        if module in seen:
            return
        seen.add(module)
        unit = module if isinstance(module, FSDPModule) else unit
        yield module, unit
        for child in module.children():
            yield from walk(child, unit)

    return walk(module, unit)


def _computes(module: nn.Module) -> bool:
    """Whether a module has a forward, and parameters that are not all those of units below it."""
    has_forward = type(module).forward is not nn.Module.forward
    return has_forward and not isinstance(module, torch.jit.ScriptModule) and _holds(module)


def _holds(module: nn.Module) -> bool:
    below = (child for child in module.children() if not isinstance(child, FSDPModule))
    return any(p is not None for p in module._parameters.values()) or any(map(_holds, below))


def _reading(module: nn.Module) -> list[str]:
    """Methods of a script's class whose code names parameters of the module, or of a child with it."""
    mine = {name for name, parameter in module._parameters.items() if parameter is not None}
    theirs = {name: set(child._parameters) for name, child in module._modules.items() if child is not None}
    if not mine and not theirs:
        return []
    found: list[str] = []
    for kind in type(module).__mro__:
        if kind in (FSDPModule, nn.Module, object) or kind.__module__.startswith("torch."):
            continue
        for name, value in vars(kind).items():
            function = inspect.unwrap(value) if callable(value) else None
            if not inspect.isfunction(function) or name == "forward" or name.startswith("__"):
                continue
            names = set(_names(function.__code__))
            by_child = any(names & theirs[child] for child in names & theirs.keys())
            if (names & mine or by_child) and name not in found and name not in module.__dict__:
                found.append(name)
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@torch.no_grad()
def _keep_changes(state: UnitState) -> None:
    """Writes what was changed in whole parameters into this rank's shards."""
    if not state.is_unsharded:
        return
    size, rank = state.mesh_info.shard_mesh_size, state.mesh_info.shard_mesh_rank
    for parameter in state.fsdp_params:
        shard = local(parameter.sharded_param)
        ours = 0 if is_scalar(parameter.sharded_param) else rank
        whole = parameter.all_gather_outputs[0].view(size, -1)[ours][: shard.numel()].view_as(shard)
        changed = (whole != shard.to(whole.device, whole.dtype)).to(shard.device)
        if changed.any():
            shard[changed] = whole.to(shard)[changed]
            if is_scalar(parameter.sharded_param):  # the copies of other ranks as well
                parameter.all_gather_outputs[0].fill_(whole.item())
