"""Reads and writes that run while the processor computes: a few threads, each with a span of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from runtime.train.offload.files import StateFile, failed
from runtime.train.offload.layout import PAGE_BYTES, whole_pages

_Act = Callable[[memoryview, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A request in flight."""

    asked: str
    spans: Sequence[Future[None]]

    def settle(self) -> None:
        """Returns when its buffer is free again, whether it went well or not."""
        wait(self.spans)

    def wait(self) -> None:
        """Returns when it is done.

        Raises:
            OffloadFailed: the disk refused a part of it.
        """
        self.settle()
        for span in self.spans:
            error = span.exception()
            if isinstance(error, OSError):
                raise failed(self.asked, error) from error
            if error is not None:
                raise error


class Transfers:
    """`threads` requests of `block_bytes` at most in flight at a time."""

    def __init__(self, *, threads: int, block_bytes: int) -> None:
        self._threads = threads
        self._block = whole_pages(block_bytes, PAGE_BYTES)
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="nvme")

    def read(self, file: StateFile, buffer: memoryview, offset: int) -> Transfer:
        """Begins to fill a buffer, which belongs to the transfer until it is done."""
        return self._start(file.read, f"read states from {file.folder}", buffer, offset)

    def write(self, file: StateFile, buffer: memoryview, offset: int) -> Transfer:
        """Begins to write a buffer, which belongs to the transfer until it is done."""
        return self._start(file.write, f"write states to {file.folder}", buffer, offset)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def _start(self, act: _Act, asked: str, buffer: memoryview, offset: int) -> Transfer:
        span = max(self._block, whole_pages(-(-len(buffer) // self._threads), self._block))
        starts = range(0, len(buffer), span)
        return Transfer(
            asked=asked,
            spans=[self._pool.submit(self._blocks, act, buffer[s : s + span], offset + s) for s in starts],
        )

    def _blocks(self, act: _Act, buffer: memoryview, offset: int) -> None:
        for start in range(0, len(buffer), self._block):
            act(buffer[start : start + self._block], offset + start)
