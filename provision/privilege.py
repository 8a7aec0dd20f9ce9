"""A command as another user of a machine: through sudo, with its password on standard input."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from provision.errors import BadInput, CommandFailed
from provision.model import Sudo

# sudo's own words, which come before the program's; of a host's name it only warns. sudo(8), DIAGNOSTICS
_REFUSED = re.compile(
    r"^sudo: (?!unable to resolve host).*|^.* is not in the sudoers file.*|^Sorry, .*", re.MULTILINE
)
# The program gets an empty standard input, never what is left of sudo's.
_WITHOUT_INPUT = ("sh", "-c", 'exec "$@" </dev/null', "sh")
# Whether sudo read the password or not, the program's input begins behind this line.
_BEGIN = "clusterwright begins"
_FROM_BEGIN = ("sh", "-c", f'while IFS= read -r line; do [ "$line" = "{_BEGIN}" ] && exec "$@"; done', "sh")


def sudo_of(become: Mapping[str, Any]) -> Sudo:
    """How commands run as root, from the options of Ansible's become plugin.

    Raises:
        BadInput: by another program than sudo, or not as root.
    """
    method, user = become["method"], str(become.get("become_user") or "root")
    if method != "sudo" or user != "root":
        found = f"ansible_become_method is {method}" if method != "sudo" else f"ansible_become_user is {user}"
        raise BadInput(
            "run commands as root",
            found=f"{found}, and provision becomes root by sudo alone",
            fix="Let its user use sudo, or run provision as a site that logs in as root.",
        )
    try:
        flags = shlex.split(str(become.get("become_flags") or ""))
    except ValueError as e:
        said = f"ansible_become_flags is {become['become_flags']!r}: {e}"
        raise BadInput("run commands as root", found=said, fix="Correct it.") from e
    return Sudo(
        password=str(become.get("become_pass") or ""),
        program=str(become.get("become_exe") or "sudo"),
        flags=tuple(word for flag in flags for word in _without_asking(flag)),
    )


def _without_asking(flag: str) -> list[str]:
    """A flag of sudo without those that say how a password is asked for: -S, -n and their long names."""
    if flag in ("--stdin", "--non-interactive"):
        return []
    if not re.fullmatch("-[A-Za-z]+", flag):
        return [flag]
    rest = flag.replace("S", "").replace("n", "")
    return [rest] if rest != "-" else []


def as_user(argv: Sequence[str], sudo: Sudo, user: str) -> list[str]:
    """The command as that user; where sudo wants a password, it is the first line of standard input."""
    ask = ("-S", "-p", "") if sudo.password else ("-n",)
    return [sudo.program, *sudo.flags, *ask, "-u", user, "--", *_WITHOUT_INPUT, *argv]


def as_root_with_input(argv: Sequence[str], sudo: Sudo | None) -> tuple[list[str], str]:
    """The command as root, and what comes on its standard input before the program's own."""
    if sudo is None:
        return list(argv), ""
    words = as_user(argv, sudo, "root")
    start = words.index(_WITHOUT_INPUT[0], words.index("--"))
    return [*words[:start], *_FROM_BEGIN, *argv], f"{sudo.password}\n{_BEGIN}\n"


def refuse(name: str, sudo: Sudo, returncode: int, stderr: str) -> None:
    """Says that sudo itself refused, where it did.

    Raises:
        CommandFailed: it wants a password that is not known, or another one.
    """
    refused = _REFUSED.search(stderr)
    if returncode != 1 or refused is None:
        return
    known = "is not the right one" if sudo.password else "is not there"
    raise CommandFailed(
        f"run a command as root on {name}",
        found=f"{refused[0].strip()} (ansible_become_password {known})",
        fix="Set it, in a vault for example, or name a file that holds it in ANSIBLE_BECOME_PASSWORD_FILE.",
    )
