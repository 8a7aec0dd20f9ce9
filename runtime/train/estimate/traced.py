"""A model that a script builds, measured by one forward of fake tensors: nothing is allocated or computed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from runtime.errors import BadInput
from runtime.train.estimate.states import Activations, Model
from runtime.train.parallel.blocks import find_blocks

_TYPES = {2: torch.bfloat16, 4: torch.float32}
Build = Callable[..., Any]


def trace_script(target: str, seq_length: int) -> Model:
    """The model of `FILE.py:FUNCTION`, which is called as FUNCTION(micro_batch=1, seq_length=...).

    It returns the model and the arguments of its forward, a tuple or a mapping. `requires_grad` is counted as
    the function left it.

    Raises:
        BadInput: there is no such function, or its model cannot run on fake tensors.
    """
    file, _, name = target.partition(":")
    try:
        build = getattr(_load(Path(file)), name)
        return trace(target, build, seq_length)
    except BadInput:
        raise
    except Exception as e:
        raise BadInput(
            f"estimate {target}",
            found=f"{type(e).__name__}: {e}",
            fix=f"Define def {name or 'FUNCTION'}(micro_batch, seq_length), which returns the model and the "
            "arguments of its forward, and reads no tensor's values.",
        ) from e


def trace(name: str, build: Build, seq_length: int) -> Model:
    """The model that `build(micro_batch=1, seq_length=...)` returns with its forward's arguments."""
    found: dict[int, Activations] = {}
    for size, dtype in _TYPES.items():
        with FakeTensorMode():
            model, inputs = build(micro_batch=1, seq_length=seq_length)
            blocks = find_blocks(model)
            for parameter in model.parameters():  # as FSDP2 gathers them
                parameter.data = _cast(parameter.data, dtype)
            found[size] = _activations(model, blocks, _cast(inputs, dtype))
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    trained = [sum(p.numel() for p in block.parameters() if p.requires_grad) for block in blocks]
    everything = list(model.parameters())
    total = sum(p.numel() for p in everything)
    return Model(
        name=name,
        trained=sum(p.numel() for p in everything if p.requires_grad),
        frozen=sum(p.numel() for p in everything if not p.requires_grad),
        blocks=len(blocks),
        block=max(sizes, default=0),
        block_trained=max(trained, default=0),
        root=total - sum(sizes),
        buffer_bytes=sum(b.numel() * b.element_size() for b in model.buffers()),
        activations=found,
        activations_from=f"a forward of fake tensors, {seq_length} tokens a sample",
    )


def _activations(model: nn.Module, blocks: list[nn.Module], inputs: Any) -> Activations:
    """What autograd saves, once for each storage; parameters and buffers are counted elsewhere.

    The largest one outside of blocks (the logits, as a rule) counts twice: its gradient is as large.
    """
    seen = {_storage(t) for t in (*model.parameters(), *model.buffers())}
    alive: list[torch.Tensor] = []  # a freed storage's identity would be given to the next
    largest = 0
    kept, inputs_of = [0] * (len(blocks) + 1), [0] * len(blocks)
    place = [len(blocks)]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        if _storage(tensor) not in seen:
            seen.add(_storage(tensor))
            alive.append(tensor)
            size = tensor.untyped_storage().nbytes()
            kept[place[0]] += size
            largest = max(largest, size) if place[0] == len(blocks) else largest
        return tensor

    with _watched(blocks, place, inputs_of), saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    return Activations(
        block=max(kept[:-1], default=0), block_input=max(inputs_of, default=0), outside=kept[-1] + largest
    )


@contextmanager
def _watched(blocks: list[nn.Module], place: list[int], inputs_of: list[int]) -> Iterator[None]:
    """Keeps in `place` which block is at work, and notes the bytes of each one's tensors."""
    handles = []
    for index, block in enumerate(blocks):

        def enter(_: nn.Module, args: Any, named: Any, index: int = index) -> None:
            place[0] = index
            tensors = [t for t in (*args, *named.values()) if isinstance(t, torch.Tensor)]
            inputs_of[index] = sum(t.numel() * t.element_size() for t in tensors if t.requires_grad)

        def leave(_: nn.Module, __: Any, ___: Any) -> None:
            place[0] = len(blocks)

        handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(block.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _cast(inputs: Any, dtype: torch.dtype) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _cast(value, dtype) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_cast(value, dtype) for value in inputs)
    floating = isinstance(inputs, torch.Tensor) and inputs.is_floating_point()
    return inputs.to(dtype) if floating else inputs


def _load(path: Path) -> Any:
    """The module of a file, whose neighbours it may import."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadInput(f"load {path}", found="no such Python file", fix="Write FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
