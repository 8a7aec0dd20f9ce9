"""A login of the controller by its key alone, as a command, and what its failure means."""

from __future__ import annotations

import ipaddress
import re
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
    "FingerprintHash=sha256",
)
# What ssh(1) says with -v. A jump host speaks first, so that the last of each is the node's.
_ACCEPTED = re.compile(r"^debug1: Server accepts key: .* (SHA256:[A-Za-z0-9+/]+)", re.MULTILINE)
_METHOD = re.compile(r'^Authenticated to .* using "([\w-]+)"', re.MULTILINE)
_CHATTER = re.compile(r"(debug\d: |OpenSSH_|Authenticated to |Transferred: |Bytes per second: )")
# Which user it is there, and from where the node sees the caller come; csh and fish understand it, too.
_WHO = "id -un; echo $SSH_CONNECTION"


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
    return [way.program, "-v", "-T", *options, *port, *key, *shlex.split(way.arguments), way.target, _WHO]


def complaint(stderr: str) -> str:
    """What ssh said but for what -v adds."""
    return " ".join(word for line in stderr.splitlines() if not _CHATTER.match(line) for word in line.split())


def opened_by(stdout: str, stderr: str) -> dict[str, str]:
    """By what a login of `key_login` got in: `key`, `address` and `user`; or `unknown`, why that is not told.

    Nothing where it was by no key, as where a VPN's daemon lets its own network in.
    """
    methods, accepted = _METHOD.findall(stderr), _ACCEPTED.findall(stderr)
    if methods and methods[-1] != "publickey":
        return {}
    if not methods or not accepted:
        return {"unknown": "ssh -v does not name the key that opened it (is there a -q among its arguments?)"}
    *_, user, connection = ["", "", *stdout.splitlines()]
    address = connection.partition(" ")[0]
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return {"unknown": f"the node does not say from where you come, but {connection[:80]!r}"}
    return {"key": accepted[-1], "address": address, "user": user}


def copy_command(way: Way) -> str:
    """What puts the person's key on the node."""
    key = ["-i", f"{way.key_file}.pub"] if way.key_file else []
    port = ["-p", way.port] if way.port and way.port != "22" else []
    return shlex.join(["ssh-copy-id", *key, *port, way.target])
