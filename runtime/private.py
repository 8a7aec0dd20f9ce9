"""Folders and files of a job: its user's alone from their first moment on, whatever the umask.

The umask itself is left alone: the program inherits it, and a team may share the checkpoints that it writes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from runtime.errors import BadInput


def make_job_folders(job_path: Path) -> None:
    """Makes the job's folder and its `logs`; the parents get the usual mode.

    Folders that are there already keep their modes, which somebody chose.

    Raises:
        BadInput: `logs` is no folder, is another user's, or others can put files there.
    """
    job_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs = job_path / "logs"
    with contextlib.suppress(FileExistsError):
        logs.mkdir(mode=0o700)
    status = logs.lstat()
    found = ""
    if not stat.S_ISDIR(status.st_mode):
        found = "it is there already, and no folder"
    elif status.st_uid != os.geteuid():
        found = f"it is there already, and belongs to user {status.st_uid}, who can replace what is in it"
    elif status.st_mode & 0o022:
        found = (
            f"it is there already, and its mode {stat.S_IMODE(status.st_mode):04o} lets others write there"
        )
    if found:
        fix = f"Move it away, close it (chmod go-w {logs}), or name another folder with --log-dir."
        raise BadInput(f"write logs into {logs}", found=found, fix=fix)


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
