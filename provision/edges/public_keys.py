"""The public halves of the keys by which the controller logs in, of files and of its agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from provision.edges import process
from provision.errors import CommandFailed, ProvisionError
from provision.model import Machine

_SECONDS = 10.0


def public_keys(machine: Machine) -> list[str]:
    """Each as a line of authorized_keys; those of the agent alone are last."""
    listed = [line for path in machine.key_files if (line := _of_file(path))]
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


def _of_file(path: Path) -> str:
    """From the file beside the key; from the key itself where there is none."""
    beside = Path(f"{path}.pub")
    if beside.is_file():
        return beside.read_text(errors="replace").strip().partition("\n")[0]
    return _said(("ssh-keygen", "-y", "-P", "", "-f", str(path))).strip() if path.exists() else ""


def _of_agent(socket: str) -> list[str]:
    lines = _said(("ssh-add", "-L"), {"SSH_AUTH_SOCK": socket}).splitlines()
    return [line for line in lines if line.startswith(("ssh-", "ecdsa-", "sk-"))]


def _said(words: tuple[str, ...], more: Mapping[str, str] | None = None) -> str:
    environment = None if more is None else {"PATH": _PATH, **more}
    try:
        finished = process.run(words, timeout_seconds=_SECONDS, env=environment, check=False)
    except ProvisionError:
        return ""
    return finished.stdout if finished.returncode == 0 else ""


_PATH = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
