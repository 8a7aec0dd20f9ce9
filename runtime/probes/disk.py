"""How fast a node writes to the disk that jobs use, past the page cache where the file system allows it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
import time
from pathlib import Path

from runtime.job.user import jobs_folder

_BLOCK_BYTES = 1 << 20
_MOST_BYTES = 256 << 20


def job_disk() -> Path:
    """Where jobs write: their user's folder on the data disk, /data, or /var/tmp on a node without one."""
    return jobs_folder() or (Path("/data") if Path("/data").is_dir() else Path("/var/tmp"))


def write_rate(folder: Path, seconds: float) -> float:
    """Bytes in a second that reach the disk of a folder, over about that time; leaves nothing there.

    Raises:
        OSError: the folder takes no file, or the disk is full or broken.
    """
    descriptor, name = tempfile.mkstemp(prefix=".clusterwright-", dir=folder)
    try:
        os.unlink(name)
        _bypass_cache(descriptor)
        # Aligned as O_DIRECT wants it, and not zeros, which some disks do not write.
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            block.write(os.urandom(_BLOCK_BYTES))
            free = os.fstatvfs(descriptor)
            most = min(_MOST_BYTES, free.f_bavail * free.f_frsize // 4)
            written, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds and written <= most:
                written += os.write(descriptor, block)
            os.fdatasync(descriptor)
            return written / (time.perf_counter() - started)
    finally:
        os.close(descriptor)


def _bypass_cache(descriptor: int) -> None:
    """O_DIRECT (open(2)); tmpfs and some others do not know it."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
