"""The words that several modules share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that the controller reaches over ssh, and the only host keys that it accepts from it."""

    name: str
    address: str
    user: str
    key_file: Path
    known_hosts: Path
