"""torch.compile by transformer block: equal blocks share their code, and FSDP2's hooks stay outside."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from runtime.errors import BadInput
from runtime.train.config.compilation import Compile
from runtime.train.parallel.activation_checkpoint import Recomputed


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
    _check(config.backend, device)
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


def _check(backend: str, device: torch.device) -> None:
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
