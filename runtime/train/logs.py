"""Words for a training's log, said by some ranks only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from runtime.train.device import get_accelerator
from runtime.train.parallel.groups import rank_or_first

logger = logging.getLogger("runtime")
_said: set[str] = set()
_Function = TypeVar("_Function", bound=Callable[..., Any])
GIB = 2**30


def log_dist(message: str, ranks: Sequence[int] | None = None, level: int = logging.INFO) -> None:
    """Logs a message on these ranks; on all for None or where -1 is among them."""
    rank = rank_or_first()
    if not ranks or -1 in ranks or rank in ranks:
        logger.log(level, "[Rank %d] %s", rank, message)


def log_dist_once(message: str, ranks: Sequence[int] | None = None, level: int = logging.INFO) -> None:
    """The same, once in a process."""
    if message not in _said:
        _said.add(message)
        log_dist(message, ranks, level)


def print_rank_0(message: str, debug: bool = False, force: bool = False) -> None:
    """Logs a message on rank 0, if it is forced or for debugging."""
    log_dist(message, [0], logging.INFO if force else logging.DEBUG)


def see_memory_usage(message: str, force: bool = False) -> None:
    """Logs what tensors take on this process's device, on rank 0, if it is forced."""
    if not force:
        return
    device = get_accelerator()
    log_dist(
        f"{message}: {device.memory_allocated() / GIB:.2f} GiB allocated, at most "
        f"{device.max_memory_allocated() / GIB:.2f}; {device.memory_reserved() / GIB:.2f} reserved",
        [0],
    )


def instrument_w_nvtx(function: _Function) -> _Function:
    """The function itself: PyTorch's profiler names functions without it."""
    return function
