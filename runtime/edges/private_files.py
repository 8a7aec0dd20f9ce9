"""Folders and files of a job: its user's alone from their first moment on, whatever the umask.

The umask itself is left alone: the program inherits it, and a team may share the checkpoints that it writes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import BadInput

_MOST_LINKS = 40  # after so many the kernel gives up, too


def make_job_folders(job_path: Path) -> None:
    """Makes the job's folder and its `logs`; the parents get the usual mode, not everybody's to write.

    Folders that are there already keep their modes, which somebody chose.

    Raises:
        BadInput: see `make_job_folder`; or `logs` is no folder, is another user's, or others can write there.
    """
    make_job_folder(job_path)
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


def make_job_folder(job_path: Path) -> None:
    """Makes the job's folder, where no stranger can put another in its place.

    Raises:
        BadInput: somebody can, see `stranger_above`.
    """
    _refuse_strangers(job_path)
    for folder in reversed((job_path, *job_path.parents)):
        if not folder.is_dir():
            folder.mkdir(mode=0o700 if folder == job_path else 0o775, exist_ok=True)
    _refuse_strangers(job_path)  # who was faster than we, in a folder such as /tmp


def _refuse_strangers(job_path: Path) -> None:
    if found := stranger_above(job_path):
        fix = "Name another with --log-dir: a folder in one of your own, such as your home."
        raise BadInput(f"make the job's folder {job_path}", found=found, fix=fix)


def stranger_above(path: Path) -> str:
    """Who else than root and the caller can replace what is or will be at the path; empty for nobody.

    Whoever owns a folder can, and so can everybody where all may write and it is not sticky, as /tmp is. A
    group that may write was let in by root or the caller: people who share such a folder go on doing so.
    """
    trusted = {0, os.geteuid(), *_unmapped_root()}
    for folder in _way(path):
        try:
            status = folder.lstat()
        except OSError:  # not there yet; where it cannot be looked at, nothing can be made either
            return ""
        if status.st_uid not in trusted:
            return f"{folder} belongs to user {status.st_uid}, who can replace what is in it"
        everybody_s = status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH
        if everybody_s and not stat.S_ISLNK(status.st_mode):
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            return f"{folder} has mode {mode}: everybody can replace what is in it (chmod +t or o-w)"
    return ""


def _unmapped_root() -> set[int]:
    """In a user namespace that does not know the machine's root: who owns / there, as whom he is shown."""
    owner = os.stat("/").st_uid
    with contextlib.suppress(OSError, ValueError):
        if owner == int(Path("/proc/sys/kernel/overflowuid").read_text()):
            return {owner}
    return set()


def _way(path: Path) -> Iterator[Path]:
    """Each folder and each link that the kernel passes on its way to the path (path_resolution(7))."""
    at, rest, links = Path("/"), list(reversed(path.absolute().parts)), 0
    while rest:
        part = rest.pop()
        at = at.parent if part == ".." else at / part
        yield at
        if at.is_symlink() and links < _MOST_LINKS:
            rest += reversed(at.readlink().parts)
            at, links = at.parent, links + 1


def create(path: Path, mode: int = 0o600) -> int:
    """A new, empty file in place of what has that name; its descriptor appends."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Puts a text there whole or not at all, with that mode less the umask; a link in its place goes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(create(partial, mode), "w", encoding="utf-8") as file:
            file.write(text)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
