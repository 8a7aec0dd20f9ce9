"""Who runs jobs: root's commands go on as the cluster's user, who alone has the key to the other nodes."""

from __future__ import annotations

import json
import os
import pwd
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import BadInput
from runtime.job.environment import FORWARDED, SESSION, matching

# Written by role runtime; a node without it has no user of jobs.
DESCRIPTION = Path("/etc/clusterwright/cluster.json")
# Where the data disk is on a node whose description does not say it.
_DATA = Path("/data")
# What Rich asks of a terminal; site.yml says with COLUMNS how wide the smoke test's table may be.
_TERMINAL = ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


def data_folder(description: Path = DESCRIPTION) -> Path:
    """Where the data disk is on this node; a description that cannot be believed says nothing about it."""
    try:
        said = _described(description).get("data")
    except BadInput:
        return _DATA
    return Path(said) if isinstance(said, str) and said.startswith("/") else _DATA


def jobs_folder(description: Path = DESCRIPTION) -> Path | None:
    """Where this user's jobs lie on the data disk; None where it has no folder of its own there.

    Role runtime makes one for the cluster's user.
    """
    own = data_folder(description) / "jobs" / user_name()
    return own if own.is_dir() else None


def user_name() -> str:
    """The name of who runs this; the number where there is none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def cluster_user(description: Path) -> str:
    """The user of jobs by the node's description; empty where there is none.

    Raises:
        BadInput: somebody else than root wrote it, or it is damaged.
    """
    if not description.exists():
        return ""
    said = _described(description).get("user")
    if not isinstance(said, str):
        raise _unread(description, f"it is damaged (its user is {said!r})")
    return said


def _described(description: Path) -> Mapping[str, Any]:
    """What role runtime wrote of the cluster.

    Raises:
        BadInput: there is none, somebody else than root wrote it, or it is damaged.
    """
    try:
        with description.open() as stream:
            owner, text = os.fstat(stream.fileno()), stream.read()
        if owner.st_uid != 0 or stat.S_IMODE(owner.st_mode) & 0o022:
            raise _unread(description, "others than root can write it")
        return dict(json.loads(text))
    except (OSError, ValueError, TypeError) as e:
        raise _unread(description, f"it is damaged ({e!r})") from e


def _unread(description: Path, found: str) -> BadInput:
    fix = "Run the role runtime (site.yml), which writes it."
    return BadInput(f"read who runs jobs in {description}", found=found, fix=fix)


def environment_of(account: pwd.struct_passwd, session: Mapping[str, str]) -> dict[str, str]:
    """Root's variables for that user: those that a rank may get and the terminal's; its own home and name.

    All others stay with root: tokens and sockets of its session are not for whoever writes a job.
    """
    kept = matching(session, (*FORWARDED, *SESSION, *_TERMINAL))
    names = {"USER": account.pw_name, "LOGNAME": account.pw_name}
    return {**kept, **names, "HOME": account.pw_dir, "SHELL": account.pw_shell}


def go_on_as_cluster_user(
    session: Mapping[str, str], say: Callable[[str], None], *, description: Path = DESCRIPTION
) -> None:
    """Where root runs this and the cluster's user is another, begins anew as that user in this very process.

    Args:
        session: the variables of this process.
        say: is told who goes on.

    Raises:
        BadInput: the description is damaged, there is no such user here, or he may not run this Python.
    """
    if os.geteuid() != 0:
        return
    name = cluster_user(description)
    if name in ("", "root"):
        return
    try:
        account = pwd.getpwnam(name)
    except KeyError as e:
        raise BadInput(
            f"run this as {name}, as {description} says",
            found="there is no such user on this node",
            fix="Run the role job_user (site.yml).",
        ) from e
    # The groups of root first, then every right: not even a saved one is left (credentials(7)).
    os.initgroups(name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    say(f"goes on as {name}, who runs the jobs of this cluster{_leave(account.pw_dir)}")
    sys.stdout.flush()
    sys.stderr.flush()
    # What root's shell had open: a file that was opened before can be read without a right to it.
    os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))))
    words = [sys.executable, *sys.orig_argv[1:]]
    try:
        os.execve(sys.executable, words, environment_of(account, session))
    except OSError as e:
        raise BadInput(
            f"run this as {name}, as {description} says",
            found=f"{name} may not run {sys.executable}: {e.strerror}",
            fix=f"Run it from an environment that {name} can read, as site.yml installs one.",
        ) from e


def _leave(home: str) -> str:
    """From a folder that this user may not enter, such as /root, to its home; how that is told."""
    if os.access(".", os.X_OK):
        return ""
    left = os.getcwd()
    os.chdir(home)
    return f", in {home}, since it may not enter {left}"
