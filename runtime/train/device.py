"""This process's device under one set of names, whether it is a GPU or the CPU."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_map

from runtime.comm.group import default_backend


class Accelerator:
    """The device of this process. What it does not name, PyTorch's own module for the device answers."""

    def __init__(self, kind: str) -> None:
        self._name = kind
        self._torch: Any = torch.cuda if kind == "cuda" else torch.cpu

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._torch, name)

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self._name == "cuda"

    def device_name(self, device_index: int | None = None) -> str:
        """`cuda`, `cuda:1` or `cpu`."""
        return self._name if device_index is None or not self.is_gpu else f"{self._name}:{device_index}"

    def device(self, device_index: int | None = None) -> Any:
        """The device: a context on a GPU."""
        return torch.cuda.device(device_index) if self.is_gpu else torch.device("cpu")

    def current_device(self) -> int | str:
        """Its number, or `cpu`."""
        return torch.cuda.current_device() if self.is_gpu else "cpu"

    def current_device_name(self) -> str:
        """Its name with its number."""
        return f"cuda:{torch.cuda.current_device()}" if self.is_gpu else "cpu"

    def set_device(self, device_index: int | torch.device) -> None:
        """Makes a GPU this process's own."""
        if self.is_gpu:
            torch.cuda.set_device(device_index)

    def device_count(self) -> int:
        """Devices of this machine; the CPU is one."""
        return torch.cuda.device_count() if self.is_gpu else 1

    def is_available(self) -> bool:
        """It is."""
        return True

    def communication_backend_name(self) -> str:
        """The backend of its collectives."""
        return "nccl" if self.is_gpu else default_backend()

    def is_bf16_supported(self) -> bool:
        """Whether it computes in bf16."""
        return not self.is_gpu or torch.cuda.is_bf16_supported()

    def is_fp16_supported(self) -> bool:
        """Whether it computes in fp16."""
        return True

    def supported_dtypes(self) -> list[torch.dtype]:
        """Types in which it computes."""
        bf16 = [torch.bfloat16] if self.is_bf16_supported() else []
        return [torch.float32, torch.float16, *bf16]

    def is_synchronized_device(self) -> bool:
        """Whether a call returns once it is done."""
        return not self.is_gpu

    def synchronize(self, device_index: int | None = None) -> None:
        """Waits for what is being computed."""
        if self.is_gpu:
            torch.cuda.synchronize(device_index)

    def empty_cache(self) -> None:
        """Gives memory that is kept back to the device."""
        if self.is_gpu:
            torch.cuda.empty_cache()

    def memory_allocated(self, device_index: int | None = None) -> int:
        """Bytes of tensors on a GPU; 0 on the CPU, where nobody counts them."""
        return torch.cuda.memory_allocated(device_index) if self.is_gpu else 0

    def max_memory_allocated(self, device_index: int | None = None) -> int:
        """The most that it has been."""
        return torch.cuda.max_memory_allocated(device_index) if self.is_gpu else 0

    def reset_peak_memory_stats(self, device_index: int | None = None) -> None:
        """Begins to count anew."""
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(device_index)

    def memory_reserved(self, device_index: int | None = None) -> int:
        """Bytes that PyTorch holds of a GPU."""
        return torch.cuda.memory_reserved(device_index) if self.is_gpu else 0

    def max_memory_reserved(self, device_index: int | None = None) -> int:
        """The most that it has been."""
        return torch.cuda.max_memory_reserved(device_index) if self.is_gpu else 0

    def total_memory(self, device_index: int | None = None) -> int:
        """Bytes that the device has."""
        if self.is_gpu:
            return int(torch.cuda.get_device_properties(device_index or 0).total_memory)
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def available_memory(self, device_index: int | None = None) -> int:
        """Bytes that are free."""
        if self.is_gpu:
            return torch.cuda.mem_get_info(device_index)[0]
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")

    def random(self) -> Any:
        """PyTorch's module for random numbers."""
        return torch.random

    def manual_seed(self, seed: int) -> None:
        """Seeds this device."""
        torch.cuda.manual_seed(seed) if self.is_gpu else torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seeds every device of this process."""
        torch.cuda.manual_seed_all(seed) if self.is_gpu else torch.manual_seed(seed)

    def get_rng_state(self, device_index: int | None = None) -> torch.Tensor:
        """The state of the device's random numbers."""
        if self.is_gpu:
            return torch.cuda.get_rng_state(
                torch.cuda.current_device() if device_index is None else device_index
            )
        return torch.get_rng_state()

    def set_rng_state(self, new_state: torch.Tensor, device_index: int | None = None) -> None:
        """Goes on from a state."""
        if self.is_gpu:
            index = torch.cuda.current_device() if device_index is None else device_index
            torch.cuda.set_rng_state(new_state, index)
        else:
            torch.set_rng_state(new_state)

    def pin_memory(self, tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Page-locked, where there is a GPU to copy to."""
        return tensor.pin_memory() if self.is_gpu else tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is page-locked."""
        return self.is_gpu and tensor.is_pinned()

    def on_accelerator(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on this kind of device."""
        return tensor.device.type == self._name

    def range_push(self, msg: str, *_: Any, **__: Any) -> None:
        """Begins a range of NVTX, where there is a GPU."""
        if self.is_gpu:
            torch.cuda.nvtx.range_push(msg)  # type: ignore[no-untyped-call]

    def range_pop(self, *_: Any, **__: Any) -> None:
        """Ends it."""
        if self.is_gpu:
            torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]


@cache
def get_accelerator() -> Accelerator:
    """The device of this process: its GPUs where there are any, else the CPU."""
    return Accelerator("cuda" if torch.cuda.is_available() else "cpu")


def set_random_seed(seed: int) -> None:
    """Seeds Python, numpy and PyTorch on every device."""
    random.seed(seed)
    import numpy

    numpy.random.seed(seed)
    torch.manual_seed(seed)


def move_to_device(item: Any, device: Any, criterion_func: Callable[[Any], bool] | None = None) -> Any:
    """A copy of nested lists, tuples and dicts whose tensors, or what is chosen, are on a device."""
    chosen = criterion_func or (lambda one: isinstance(one, torch.Tensor))
    return tree_map(lambda one: one.to(device) if chosen(one) else one, item, is_leaf=chosen)


def empty_cache() -> None:
    """Gives memory that is kept back to the device."""
    get_accelerator().empty_cache()


def is_torch_at_least(min_version: float | str | None = None, max_version: float | str | None = None) -> bool:
    """Whether PyTorch's version is within these bounds, both included."""
    now = _numbers(torch.__version__)
    low = min_version is None or _numbers(str(min_version)) <= now
    high = max_version is None or now[: len(_numbers(str(max_version)))] <= _numbers(str(max_version))
    return low and high


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.partition("+")[0].split(".")[:2] if part.isdecimal()]
