"""Memory that a tensor gave back goes back to the system, for processes that have little of it."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # mallopt(3)
_LARGE_BYTES = 4 * 1024 * 1024


def return_freed_memory() -> None:
    """Keeps large tensors out of glibc's heap, for the whole process; elsewhere it does nothing.

    Left alone, glibc raises its threshold with the first large tensor that is freed, and the heap then
    fragments: 200 to 400 MB were held of a model of 400 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
