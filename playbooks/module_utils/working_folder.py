"""The folder beside a path where a build of ours works: made with a claim in it; nobody else's is ever used.

It is `.clusterwright-NAME` and holds `previous` (what was at the path), `begun`, `arriving`, and `build` for
locks and downloads. Whatever else has that name, without the claim or through a link, is refused by name.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile

CLAIM, CLAIMED = "clusterwright", "Made by Clusterwright, which removes it.\n"
WORKED = ("build", "arriving")


def working_folder(path: str) -> str:
    folder, name = os.path.split(path.rstrip("/"))
    return os.path.join(folder, f".clusterwright-{name}")


def is_ours(folder: str) -> bool:
    claim = os.path.join(folder, CLAIM)
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode) or not stat.S_ISREG(os.lstat(claim).st_mode):
            return False
        with open(claim, encoding="utf-8") as stream:
            return stream.read(len(CLAIMED) + 1) == CLAIMED
    except (OSError, ValueError):
        return False


def opened(path: str) -> str:
    """The working folder of a path, made where it is not there.

    Raises:
        FileExistsError: something of somebody else has its name.
    """
    folder = working_folder(path)
    if is_ours(folder):
        return folder
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} is there already, and not ours: move it to another name yourself")
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    new = tempfile.mkdtemp(prefix=".clusterwright-", dir=parent)
    with open(os.path.join(new, CLAIM), "x", encoding="utf-8") as stream:
        stream.write(CLAIMED)
    # The user of jobs has to reach a socket in it.
    os.chmod(new, 0o711)
    os.rename(new, folder)
    return folder


def left_in(path: str, name: str) -> str:
    """The place of something in the working folder, "" where it is not there or the folder is not ours."""
    folder = working_folder(path)
    place = os.path.join(folder, name)
    return place if is_ours(folder) and os.path.lexists(place) else ""


def worked_in(path: str) -> bool:
    """Whether `closed` would remove something."""
    folder = working_folder(path)
    if not is_ours(folder):
        return False
    names = os.listdir(folder)
    return names == [CLAIM] or any(name in names for name in WORKED)


def closed(path: str) -> None:
    """Removes what was worked with, and the folder where it holds nothing else then."""
    folder = working_folder(path)
    if not is_ours(folder):
        return
    for name in WORKED:
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    if os.listdir(folder) == [CLAIM]:
        os.unlink(os.path.join(folder, CLAIM))
        os.rmdir(folder)
