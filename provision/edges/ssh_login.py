"""What a login offers, in the order of OpenSSH's client: keys of the agent, keys of files, a password."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH
from paramiko.auth_strategy import AuthResult, AuthStrategy

from provision.edges.known_hosts import trusted_keys
from provision.edges.public_keys import public_half
from provision.edges.ssh_words import COMPARE, TRY, filled, reach
from provision.errors import CommandFailed
from provision.model import Machine

_AGENT_SECONDS = 10.0
# RFC 8332: a key of the kind ssh-rsa signs by any of these.
_RSA = {"rsa-sha2-256", "rsa-sha2-512"}
# In the words of an attempt that ends the login; what else is refused, the next offer follows.
_TIME_OUT = "imeout"


class PinnedKeys(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """The host keys that a machine may have, and no others; the library's own list has one of each kind."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        texts = []
        for path in machine.known_hosts:
            with suppress(OSError):
                texts.append(path.read_text(errors="replace"))
        self._keys = trusted_keys(texts, machine.known_as)

    @property
    def other_algorithms(self) -> list[str]:
        """What it is not to prove itself by: kinds of which no key is known; none where no key is."""
        kinds = {key.split()[0] for key in self._keys}
        known = kinds | (_RSA if "ssh-rsa" in kinds else set())
        return [one for one in paramiko.Transport._preferred_keys if one not in known] if kinds else []

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Of each key that a machine shows.

        Raises:
            CommandFailed: it is another one.
        """
        if f"{key.get_name()} {key.get_base64()}" in self._keys:
            return
        found = (
            "its host key is another one than {known} holds"
            if self._keys
            else "{known} does not hold its host key"
        )
        raise CommandFailed(
            reach(self._machine), found=filled(self._machine, found), fix=filled(self._machine, COMPARE)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """Something to log in with: its name, and the attempt, which returns what is wanted beyond it."""

    what: str
    attempt: Callable[[Any], list[str]]


class _Agent(AgentSSH):  # type: ignore[misc]
    """The agent at a socket; the library's own class knows only the one of the environment."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_AGENT_SECONDS)
        connection.connect(path)
        self._connect(connection)


class Login(AuthStrategy):  # type: ignore[misc]
    """Tries all that a machine's settings offer, and says of each why it opened nothing."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(ssh_config=None)
        self._machine = machine
        self._unusable: list[str] = []
        self._needs_agent = ""

    def authenticate(self, transport: Any) -> Any:
        """Raises:
        CommandFailed: nothing of it opens the machine.
        """
        refused = []
        for offer in self._offers():
            try:
                wanted = offer.attempt(transport)
            except paramiko.AuthenticationException as e:
                if _TIME_OUT in str(e):
                    raise
                refused.append(offer.what)
                if not transport.is_active():
                    self._unusable.append("it ended the login there: MaxAuthTries in its sshd_config(5)")
                    break
                continue
            if not wanted:
                return AuthResult(strategy=self)
            refused.append(f"{offer.what} alone (it wants {', '.join(wanted)} as well)")
        raise self._failure(refused)

    def _failure(self, refused: list[str]) -> CommandFailed:
        machine, said = self._machine, ", ".join(refused)
        found = f"it refuses {machine.user} with {said}" if refused else "there is nothing to log in with"
        add = f"ssh-add {self._needs_agent}, with an agent (SSH_AUTH_SOCK)." if self._needs_agent else ""
        return CommandFailed(
            reach(machine), found="; ".join([found, *self._unusable]), fix=add or filled(machine, TRY)
        )

    def _offers(self) -> Iterator[_Offer]:
        agent = {key.asbytes(): key for key in self._agent_keys()}
        files = [(path, _public_half(path)) for path in self._machine.key_files if path.exists()]
        listed = [public for _, public in files if public in agent]
        others = (
            [] if self._machine.agent_offers_listed_keys_only else [one for one in agent if one not in listed]
        )
        for public in [*dict.fromkeys(listed), *others]:
            key = agent[public]
            yield self._key(f"the agent's key {key.comment or key.get_name()}", key)
        for path, public in files:
            if public not in agent and (loaded := self._loaded(path)) is not None:
                yield self._key(f"the key {path}", loaded)
        if password := self._machine.password:
            yield _Offer(
                what="the password",
                attempt=lambda to: list(to.auth_password(self._machine.user, password) or []),
            )

    def _key(self, what: str, key: Any) -> _Offer:
        return _Offer(what=what, attempt=lambda to: list(to.auth_publickey(self._machine.user, key) or []))

    def _agent_keys(self) -> list[Any]:
        if not self._machine.agent:
            return []
        try:
            return list(_Agent(self._machine.agent).get_keys())
        except (OSError, paramiko.SSHException) as e:
            self._unusable.append(f"the agent at {self._machine.agent} does not answer: {e}")
            return []

    def _loaded(self, path: Path) -> Any:
        """The private key, or None where it is noted why it cannot be used."""
        try:
            return paramiko.PKey.from_path(path)
        except OSError as e:
            self._unusable.append(f"{path}: {e.strerror}")
        except (TypeError, paramiko.PasswordRequiredException):
            self._needs_agent = self._needs_agent or str(path)
            self._unusable.append(f"the key {path} needs a passphrase")
        except Exception as e:  # of a text that is no key, each library raises another one
            self._unusable.append(f"{path} is no key that can be used without an agent ({type(e).__name__})")
        return None


def _public_half(path: Path) -> bytes:
    """The key as a server gets it; empty where no file tells it."""
    with suppress(LookupError, ValueError):
        return base64.b64decode(public_half(path).split()[1], validate=True)
    return b""
