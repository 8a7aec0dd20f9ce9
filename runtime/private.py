"""Folders and files of a job: its user's alone from their first moment on, whatever the umask.

The umask itself is left alone: the program inherits it, and a team may share the checkpoints that it writes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runtime.errors import BadInput


def make_job_folders(job_path: Path) -> None:
    """Makes the job's folder and its `logs`; the parents get the usual mode.

    A job's folder that is there already keeps its mode, which somebody chose; `logs` is ours and is closed.

    Raises:
        BadInput: `logs` is a link, or open to others and not ours to close.
    """
    job_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs = job_path / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    try:
        descriptor = os.open(logs, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    except OSError as e:
        raise BadInput(
            f"write logs into {logs}",
            found=f"it is there already, as no folder of this user alone ({e.strerror})",
            fix="Move it away, or name another folder with --log-dir.",
        ) from e


def create(path: Path) -> int:
    """A new, empty file in place of what has that name, 0600; its descriptor appends."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def write(path: Path, text: str) -> None:
    """Puts a text there whole or not at all, 0600."""
    partial = path.with_name(f"{path.name}.partial")
    with os.fdopen(create(partial), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
