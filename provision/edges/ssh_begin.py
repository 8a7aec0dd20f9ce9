"""Where a program's own output begins: a login shell may print a greeting before it runs what it was given.

A shell that sshd starts for a command reads ~/.bashrc, too (bash(1), "invoked by sshd").
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Sequence

# No greeting has it.
MARK = f"clusterwright {secrets.token_hex(8)}"
MOST_GREETING_BYTES = 1 << 18


def marked(argv: Sequence[str]) -> str:
    """A program for a login shell of any kind, which says so before it becomes that program."""
    return f"echo '{MARK}'; exec {shlex.join(argv)}"


def after_mark(text: str) -> str | None:
    """What the program printed; None where the shell did not come to run it."""
    _, mark, own = text.partition(f"{MARK}\n")
    return own if mark else None


def skip_greeting(receive: Callable[[int], bytes]) -> bool:
    """Reads on from a channel to where the program's own output begins; whether it came to that."""
    wanted, said = f"{MARK}\n".encode(), bytearray()
    while not said.endswith(wanted):
        letter = receive(1)
        if not letter or len(said) > MOST_GREETING_BYTES:
            return False
        said += letter
    return True
