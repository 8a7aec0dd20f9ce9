"""The public halves of the keys by which the controller logs in, of files and of its agent."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from provision.edges import process
from provision.errors import CommandFailed, ProvisionError
from provision.model import Machine

_SECONDS = 10.0
_KINDS = ("ssh-", "ecdsa-", "sk-")


def public_keys(machine: Machine) -> list[str]:
    """Each as a line of authorized_keys; those of the agent alone are last."""
    listed = [line for path in machine.key_files if (line := public_half(path))]
    offered = [] if machine.agent_offers_listed_keys_only or not machine.agent else _of_agent(machine.agent)
    return list(dict.fromkeys([*listed, *offered]))


def login_key(machine: Machine) -> str:
    """The key that is to open a new machine.

    Raises:
        CommandFailed: no file and no agent tells one.
    """
    if found := public_keys(machine):
        return found[0]
    paths = ", ".join(f"{path}.pub" for path in machine.key_files) or "its settings name no key"
    raise CommandFailed(
        f"tell {machine.name} which key of yours opens it",
        found=f"none is found: {paths}",
        fix="Set ansible_ssh_private_key_file to your key, its public half beside it, or start an agent.",
    )


def public_half(path: Path) -> str:
    """A line of authorized_keys, from the file beside the key or from itself; empty where none tells."""
    for one in (Path(f"{path}.pub"), path):
        with suppress(OSError):
            line = one.read_text(errors="replace").strip().partition("\n")[0]
            if line.startswith(_KINDS):
                return line
    with suppress(OSError, ValueError, LookupError, struct.error):
        if found := _unencrypted(path.read_text()):
            return found
    return _said(("ssh-keygen", "-y", "-P", "", "-f", str(path))).strip() if path.exists() else ""


def _unencrypted(text: str) -> str:
    """Where OpenSSH wrote the key its public half is readable without the passphrase (PROTOCOL.key)."""
    if not text.startswith("-----BEGIN OPENSSH PRIVATE KEY-----"):
        return ""
    inside = base64.b64decode("".join(text.split("-----")[2].split()))
    at = len(b"openssh-key-v1\0")
    for _ in ("cipher", "kdf", "its options"):
        at += 4 + _length(inside, at)
    at += 4  # how many keys
    public = inside[at + 4 : at + 4 + _length(inside, at)]
    kind = public[4 : 4 + _length(public, 0)].decode("ascii")
    return f"{kind} {base64.b64encode(public).decode()}"


def _length(data: bytes, at: int) -> int:
    (length,) = struct.unpack_from(">I", data, at)
    return int(length)


def _of_agent(socket: str) -> list[str]:
    lines = _said(("ssh-add", "-L"), {"SSH_AUTH_SOCK": socket}).splitlines()
    return [line for line in lines if line.startswith(_KINDS)]


def _said(words: tuple[str, ...], more: Mapping[str, str] | None = None) -> str:
    environment = None if more is None else {"PATH": _PATH, **more}
    try:
        finished = process.run(words, timeout_seconds=_SECONDS, env=environment, check=False)
    except ProvisionError:
        return ""
    return finished.stdout if finished.returncode == 0 else ""


_PATH = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
