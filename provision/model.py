"""The words that several modules share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Sudo:
    """Commands run as root through sudo; its password, empty where it asks for none."""

    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that the controller reaches over ssh, and the only host keys that it accepts from it.

    `sudo` is None where commands run as the user that logs in.
    """

    name: str
    address: str
    user: str
    key_file: Path
    known_hosts: Path
    sudo: Sudo | None = None
