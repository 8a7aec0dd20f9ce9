"""The transformer blocks of a model: found from its structure, made to recompute activations, compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from runtime.errors import BadInput
from runtime.train.config.schema import ActivationCheckpointing, Compile


def find_blocks(model: nn.Module, classes: Sequence[type[nn.Module]] = ()) -> list[nn.Module]:
    """The modules that are sharded, checkpointed and compiled as units, in the model's order.

    By `classes` where given; else by the class names in the model's `_no_split_modules` (Hugging Face models
    state them); else the children of every outermost ModuleList whose children are of one class.

    Raises:
        BadInput: classes were given and the model has no module of them, or they are no classes.
    """
    if strange := [given for given in classes if not isinstance(given, type)]:
        raise BadInput(
            "shard the model by the blocks that were passed",
            found=f"{type(strange[0]).__name__} among them, which is no class",
            fix="Pass classes of modules: blocks=[type(model.layers[0])].",
        )
    if classes:
        found = [module for module in model.modules() if isinstance(module, tuple(classes))]
        if not found:
            names = ", ".join(c.__name__ for c in classes)
            raise BadInput(
                f"shard the model by its {names}",
                found=f"{type(model).__name__} has no such module",
                fix="Name the class of the model's transformer block, or let the blocks be found.",
            )
        return found
    stated = set(getattr(model, "_no_split_modules", None) or ())
    named = [module for module in model.modules() if type(module).__name__ in stated]
    return named or list(_repeated(model))


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList) and _is_stack(child):
            yield from child
        else:
            yield from _repeated(child)


def _is_stack(stack: nn.ModuleList) -> bool:
    kinds = {type(child) for child in stack}
    return len(kinds) == 1 and all(any(True for _ in child.parameters()) for child in stack)


def recompute_blocks(
    blocks: Sequence[nn.Module], config: ActivationCheckpointing | None, device: torch.device
) -> None:
    """Makes each block recompute, in place; before sharding, so that one gather serves both passes.

    Random numbers (dropout) are the same in both. With `cpu_checkpointing` inputs wait in host memory.
    """
    if config is None or not config.enabled:
        return
    for block in blocks:
        block.forward = Recomputed(block.forward, config.cpu_checkpointing, device)


class Recomputed:
    """A block's forward that keeps its inputs, and in the backward runs again."""

    def __init__(self, forward: Callable[..., Any], in_host_memory: bool, device: torch.device) -> None:
        self.forward = forward
        self._in_host_memory, self._pinned = in_host_memory, device.type != "cpu"

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **named)
        with self._keep():
            return checkpoint(self.forward, *inputs, use_reentrant=False, **named)

    def _keep(self) -> AbstractContextManager[Any]:
        return save_on_cpu(pin_memory=self._pinned) if self._in_host_memory else nullcontext()


def compile_blocks(blocks: Sequence[nn.Module], config: Compile, device: torch.device) -> None:
    """Compiles each block's forward, in place; below the recomputation where there is one. Compiling is lazy.

    Raises:
        BadInput: there is no block, the backend is not known, or it has no compiler here.
    """
    if not blocks:
        raise BadInput(
            "compile the model by transformer block",
            found="no block was found in it",
            fix="Pass blocks=[...] to runtime.initialize, or leave compile out.",
        )
    _check_backend(config.backend, device)
    options: dict[str, Any] = {"backend": config.backend, "dynamic": config.dynamic, "mode": config.mode}
    for block in blocks:
        holder = block.forward if isinstance(block.forward, Recomputed) else block
        holder.forward = torch.compile(holder.forward, **options)


def wanted_compilation(backend: str, options: Mapping[str, Any]) -> Compile:
    """The settings of `engine.compile(backend, compile_kwargs)`.

    Raises:
        BadInput: an option that a block is not compiled with.
    """
    unknown = sorted(set(options) - {"mode", "dynamic"})
    if unknown:
        raise BadInput(
            f"compile with {', '.join(unknown)}",
            found="blocks are compiled with a backend, a mode and dynamic",
            fix="Leave it out of compile_kwargs.",
        )
    return Compile(backend=backend, mode=options.get("mode"), dynamic=options.get("dynamic"))


def _check_backend(backend: str, device: torch.device) -> None:
    known = torch.compiler.list_backends()
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        raise BadInput(
            f"compile with backend {backend!r}",
            found=f"this torch knows {', '.join(known)}",
            fix="Write compile.backend inductor, or leave it out.",
        )
    if backend == "inductor" and device.type == "cpu":
        from torch._inductor import config as inductor

        names = [name for name in inductor.cpp.cxx if name]
        if not any(shutil.which(name) for name in names):
            raise BadInput(
                "compile for a CPU with inductor",
                found=f"no C++ compiler ({', '.join(names)}) on this machine's PATH",
                fix="Install g++ on every node, write compile.backend aot_eager, or leave compile out.",
            )
