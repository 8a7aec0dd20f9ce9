"""A login of the controller by its key alone, as a command, and what its failure means."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

# The first value of an option counts, so that these come before those of the site. ssh_config(5)
_KEY_ALONE = (
    "BatchMode=yes",
    "PreferredAuthentications=publickey",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "StrictHostKeyChecking=yes",
    "ControlMaster=no",
    "ControlPath=none",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How Ansible reaches a node: its own ssh options, as words of a shell, and empty where not given."""

    address: str
    user: str
    port: str
    key_file: str
    arguments: str
    program: str
    timeout_seconds: int

    @property
    def target(self) -> str:
        return f"{self.user}@{self.address}" if self.user else self.address


def key_login(way: Way) -> list[str]:
    """The command of a fresh connection that only a key opens, and that asks nobody."""
    options = [
        word for option in (*_KEY_ALONE, f"ConnectTimeout={way.timeout_seconds}") for word in ("-o", option)
    ]
    port = ["-o", f"Port={way.port}"] if way.port else []
    key = ["-o", f'IdentityFile="{way.key_file}"'] if way.key_file else []
    return [way.program, "-T", *options, *port, *key, *shlex.split(way.arguments), way.target, "true"]


def copy_command(way: Way) -> str:
    """What puts the person's key on the node."""
    key = ["-i", f"{way.key_file}.pub"] if way.key_file else []
    port = ["-p", way.port] if way.port and way.port != "22" else []
    return shlex.join(["ssh-copy-id", *key, *port, way.target])
