"""The words that several modules share."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

SSH_PORT = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Sudo:
    """Commands run as root through sudo; its password, empty where it asks for none.

    `flags` are the site's own, beside those that say how a password is asked for.
    """

    password: str = field(default="", repr=False)
    program: str = "sudo"
    flags: tuple[str, ...] = ("-H",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a machine cannot be reached, known before it is tried, and what to do."""

    found: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that the controller reaches over ssh, and the only host keys that it accepts from it.

    `key_files` are tried in order, after the keys of the agent at the socket `agent`; the first of
    `known_hosts` is where a new key would be written. `way` is the command whose input and output are the
    connection, where there is a jump host or a proxy. `sudo` is None where commands run as the user that logs
    in. One with a `fault` is not tried.
    """

    name: str
    address: str
    user: str
    port: int = SSH_PORT
    key_files: tuple[Path, ...] = ()
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str = ""
    agent: str = ""
    agent_offers_listed_keys_only: bool = False
    password: str = field(default="", repr=False)
    way: tuple[str, ...] = ()
    connect_seconds: float = 10.0
    sudo: Sudo | None = None
    fault: Fault | None = None

    @property
    def place(self) -> str:
        """Where it is reached, for people: the port only where it is not the usual one."""
        return self.address if self.port == SSH_PORT else f"[{self.address}]:{self.port}"

    @property
    def known_as(self) -> str:
        """Its name in known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
        return self.host_key_alias or self.place

    @property
    def calls_from(self) -> str:
        """Its address as sockets spell it: IPv6 is written in many ways (RFC 5952); a name stays one."""
        try:
            return str(ip_address(self.address))
        except ValueError:
            return self.address
