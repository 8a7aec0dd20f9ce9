"""Files that hold states: unnamed, reserved at once, past the page cache; read and written by threads."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.errors import OffloadFailed
from runtime.train.offload.layout import PAGE_BYTES, whole_pages

_FIXES = {
    errno.ENOSPC: "Free space there, choose another nvme_path, or use more ranks; checkpoints are untouched.",
    errno.EDQUOT: "Raise the quota or choose another nvme_path; checkpoints are untouched.",
    errno.EIO: "Look at `dmesg` of that node and replace the disk; continue from the last checkpoint.",
}
_HUGE_PAGE_BYTES = 2 * 1024 * 1024  # of x86-64 and of most ARM
_OTHERWISE = "Make nvme_path a folder on a local disk that this user can write to."
_Act = Callable[[memoryview, int], None]


class StateFile:
    """An unnamed file: two jobs cannot collide in one folder, and the kernel frees it however a job ends.

    Its size is reserved, so that a disk that is too small is found before training, and it reads as zeros.
    `direct` says whether the file system lets reads and writes pass its page cache (O_DIRECT).

    Raises:
        OffloadFailed: the folder cannot be used, or has too little space.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = whole_pages(size, PAGE_BYTES)
        try:
            self._descriptor, self.direct = _open(folder)
            self._closed = False
            try:
                if self.size:
                    os.posix_fallocate(self._descriptor, 0, self.size)
                self.direct = self.direct and self.size > 0 and _works_direct(self._descriptor)
            except BaseException:
                self.close()
                raise
        except OSError as e:
            raise failed(f"keep {self.size} bytes of states in {folder}", e) from e

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fills a page-aligned buffer from `offset`, which is a multiple of a page."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            if count == 0:
                raise OSError(errno.ENODATA, f"the file ends before byte {offset + len(buffer)}")
            done += count

    def write(self, buffer: memoryview, offset: int) -> None:
        """Writes a page-aligned buffer to `offset`, which is a multiple of a page."""
        done = 0
        while done < len(buffer):
            done += os.pwritev(self._descriptor, [buffer[done:]], offset + done)

    def mapped(self) -> torch.Tensor:
        """The file's bytes as a tensor that the kernel pages in and out.

        Where the disk fails under a mapping, the kernel ends the process with SIGBUS.
        """
        if not self.size:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(mmap.mmap(self._descriptor, self.size), dtype=torch.uint8)

    def close(self) -> None:
        """Gives the space back, unless a mapping still holds it."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self.close()


def page_aligned(size: int) -> memoryview:
    """Private memory that begins on a page; huge pages, where the kernel has them, are three times as fast.

    A request of O_DIRECT takes a segment for each page that does not follow the last one in physical memory.
    """
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(whole_pages(size, PAGE_BYTES), PAGE_BYTES), flags=private)
    if size >= _HUGE_PAGE_BYTES:
        with suppress(OSError):  # EINVAL: a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def failed(asked: str, error: OSError) -> OffloadFailed:
    """What a disk's error means to a person."""
    found = error.strerror or str(error)
    return OffloadFailed(asked, found=found, fix=_FIXES.get(error.errno or 0, _OTHERWISE))


def _open(folder: Path) -> tuple[int, bool]:
    """An unnamed file in the folder, and whether it was opened with O_DIRECT."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    for direct in (os.O_DIRECT, 0):
        try:
            return os.open(folder, flags | direct, 0o600), bool(direct)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EISDIR):
                raise
    descriptor, name = tempfile.mkstemp(dir=folder)  # a file system without O_TMPFILE
    os.unlink(name)
    return descriptor, False


def _works_direct(descriptor: int) -> bool:
    """Some file systems accept O_DIRECT and refuse it at the first read; it is then taken off."""
    page = page_aligned(PAGE_BYTES)
    try:
        os.preadv(descriptor, [page], 0)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT)
        return False
    return True


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
