"""Hardens an environment against what no digest of it speaks for: open modes, what conda was told.

Files that anybody may write, or that run with their owner's rights, give whoever finds them root. An
environment of before had such modes from its packages, perhaps: they are put right where it lies, and its
digest stays what it was. Standard library only; environment_digest.py and relay.py import it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

SETTINGS = ("pinned", "state")  # packages that are to stay, and what `conda env config vars set` wrote
RUNS_AS_OWNER = stat.S_ISUID | stat.S_ISGID
NOT_CLOSED = RUNS_AS_OWNER | stat.S_ISVTX | stat.S_IWGRP | stat.S_IWOTH


def settings(prefix: str) -> list[str]:
    """What a person told conda of this environment (variables, pins), which no build of ours does."""
    places = [os.path.join("conda-meta", name) for name in SETTINGS]
    return [f"extra {place}" for place in places if os.path.lexists(os.path.join(prefix, place))]


def places_in(prefix: str) -> Iterator[tuple[str, str, int, os.stat_result]]:
    """Each file and folder, "." as well: path below the prefix, its name, its folder opened, its status."""
    whole = os.path.realpath(prefix)
    for folder, _, names, opened in os.fwalk(whole, onerror=refuse_to_skip):
        inside = os.path.relpath(folder, whole)
        for name in [".", *names]:
            try:
                status = os.stat(name, dir_fd=opened, follow_symlinks=False)
            except FileNotFoundError:  # an environment in use
                continue
            if not stat.S_ISLNK(status.st_mode):
                yield os.path.normpath(os.path.join(inside, name)), name, opened, status


def refuse_to_skip(error: OSError) -> None:
    """What only others may enter, or is gone by now, is passed by; folders in folders without end are not."""
    if not isinstance(error, (PermissionError, FileNotFoundError)):
        raise error


def is_open(status: os.stat_result, owner: int) -> bool:
    """Whether it is another's, others may write it, or it is a file that runs as its owner.

    Packages bring files that root's group may write, which nobody is in; setgid of a folder gives no rights.
    """
    given = RUNS_AS_OWNER if stat.S_ISREG(status.st_mode) else 0
    written = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0)
    return status.st_uid != owner or bool(status.st_mode & (given | written))


def openings(places: Mapping[str, os.stat_result]) -> list[str]:
    """A line for each place that is open, sorted, such as `open bin/bash (mode 4755, owner 0, group 0)`.

    `places` holds the status of each by its path below the prefix, that of the prefix as "."; links may do
    what they like.
    """
    owner = places["."].st_uid
    return sorted(
        f"open {path} (mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}, group {status.st_gid})"
        for path, status in places.items()
        if not stat.S_ISLNK(status.st_mode) and is_open(status, owner)
    )


def close(prefix: str) -> None:
    """Gives each file and folder to the owner of the prefix, for nobody else to write or to run as him.

    By what was opened (O_PATH, which opens no device) and not by its path: who may write in a folder can put
    a link in the way meanwhile.
    """
    whole = os.stat(prefix)
    for _, name, there, found in places_in(prefix):
        if not (is_open(found, whole.st_uid) or found.st_mode & NOT_CLOSED):
            continue
        try:
            opened = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=there)
        except FileNotFoundError:  # an environment in use
            continue
        place = f"/proc/self/fd/{opened}"
        status = os.fstat(opened)
        if not stat.S_ISLNK(status.st_mode):
            if status.st_uid != whole.st_uid:
                os.chown(place, whole.st_uid, whole.st_gid)
            os.chmod(place, stat.S_IMODE(status.st_mode) & ~NOT_CLOSED)
        os.close(opened)
