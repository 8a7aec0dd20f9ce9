"""Files of variables: --env-file, which holds one user's secrets, and the node's own job.env."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runtime.errors import BadInput
from runtime.job.environment import parse_job_environment
from runtime.untrusted.files import open_plain

# Of all variables and arguments together a kernel takes less by default (execve(2)).
_MOST_BYTES = 1 << 20


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file that nobody else reads or writes. No error repeats a line of it.

    Raises:
        BadInput: it is no regular file of the caller or of root, others have a right to it, or a line is not
            KEY=VALUE.
    """
    try:
        with open_plain(path) as file:
            _check_rights(path, os.fstat(file.fileno()))
            content = file.read(_MOST_BYTES + 1)
    except OSError as e:
        raise BadInput(
            f"read {path} (--env-file)",
            found=e.strerror or type(e).__name__,
            fix="Name a regular file with lines KEY=VALUE; a link is not followed.",
        ) from e
    if len(content) > _MOST_BYTES:
        raise BadInput(
            f"read {path} (--env-file)",
            found="it has more than 1 MiB",
            fix="Name a file with lines KEY=VALUE.",
        )
    return parse_job_environment(_text(path, content), source=str(path))


def read_job_environment(path: Path) -> dict[str, str]:
    """The variables of the node's job.env; none where there is no such file.

    Raises:
        BadInput: it cannot be read, or a line is not KEY=VALUE.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise BadInput(
            f"read {path}",
            found=e.strerror or type(e).__name__,
            fix="Every user must be able to read it: site.yml --tags collective_network writes it anew.",
        ) from e
    return parse_job_environment(_text(path, content), source=str(path))


def _check_rights(path: Path, status: os.stat_result) -> None:
    """Root's file may be readable to a group: that is how root hands it to a user."""
    mode, caller = stat.S_IMODE(status.st_mode), os.geteuid()
    if status.st_uid not in (caller, 0):
        raise BadInput(
            f"read {path} (--env-file)",
            found=f"it belongs to user {status.st_uid}, who can change it",
            fix="Name a file of your own, with mode 0600.",
        )
    allowed = 0o740 if status.st_uid != caller else 0o700
    if mode & 0o777 & ~allowed:
        raise BadInput(
            f"read {path} (--env-file)",
            found=f"its mode is {mode:04o}: others can read or write what is secret",
            fix=f"chmod 600 {path}; take the values for known, and change them where they are secrets.",
        )


def _text(path: Path, content: bytes) -> str:
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError:
            found = "it is not UTF-8"
        else:
            if b"\0" not in line:
                continue
            found = "it holds a zero byte"
        # Not from the decoder's error, which repeats the line.
        raise BadInput(f"read {path}, line {number}", found=found, fix="A line reads KEY=VALUE.") from None
    return content.decode()
