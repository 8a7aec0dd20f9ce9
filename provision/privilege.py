"""A command as another user of a machine: through sudo, with its password on standard input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from provision.errors import BadInput, CommandFailed
from provision.model import Sudo

_PASSWORDS = ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass")
_TRUE = ("true", "yes", "on", "1", "y", "t")
# sudo's own words, which come before the program's; of a host's name it only warns. sudo(8), DIAGNOSTICS
_REFUSED = re.compile(
    r"^sudo: (?!unable to resolve host).*|^.* is not in the sudoers file.*|^Sorry, .*", re.MULTILINE
)
# The program gets an empty standard input, never what is left of sudo's.
_WITHOUT_INPUT = ("sh", "-c", 'exec "$@" </dev/null', "sh")


def sudo_of(name: str, variables: Mapping[str, Any]) -> Sudo | None:
    """How a node's variables have commands run as root; None where they do not say so.

    Raises:
        BadInput: by another program than sudo.
    """
    if str(variables.get("ansible_become", "")).lower() not in _TRUE:
        return None
    method = str(variables.get("ansible_become_method", "sudo")).removeprefix("ansible.builtin.")
    if method != "sudo":
        raise BadInput(
            f"run commands as root on {name}",
            found=f"ansible_become_method is {method}, which only the playbooks can use",
            fix="Let its user use sudo, or run provision as a site that logs in as root.",
        )
    given = next((variables[one] for one in _PASSWORDS if one in variables), "")
    is_plain = isinstance(given, str | int) and "{{" not in str(given)
    return Sudo(password=str(given) if is_plain else "")


def as_user(argv: Sequence[str], sudo: Sudo, user: str) -> list[str]:
    """The command as that user; where sudo wants a password, it is the first line of standard input."""
    ask = ("-S", "-p", "") if sudo.password else ("-n",)
    return ["sudo", "-H", *ask, "-u", user, "--", *_WITHOUT_INPUT, *argv]


def refuse(name: str, sudo: Sudo, returncode: int, stderr: str) -> None:
    """Says that sudo itself refused, where it did.

    Raises:
        CommandFailed: it wants a password that is not known, or another one.
    """
    refused = _REFUSED.search(stderr)
    if returncode != 1 or refused is None:
        return
    known = "is not the right one" if sudo.password else "is not there, or only Ansible can read it"
    raise CommandFailed(
        f"run a command as root on {name}",
        found=f"{refused[0].strip()} (ansible_become_password {known})",
        fix="Write its password there in plain words, or let its user use sudo without one.",
    )
