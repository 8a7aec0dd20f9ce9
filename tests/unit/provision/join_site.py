"""A site that waits for te3 at 127.0.0.1 and te4 at 127.0.0.2, and machines that call it over loopback."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from provision.join.protocol import Letter, Token, mac
from provision.join.server import listening
from provision.join.tokens import Tokens
from provision.model import Machine
from provision.nodes.arrivals import Arrivals

PROGRAM = Path(__file__).parents[3] / "playbooks" / "roles" / "image_cleanup" / "files" / "first_boot.py"
ADDRESSES = {"te3": "127.0.0.1", "te4": "127.0.0.2"}
KEYS = [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'a' * 43}"]
OTHER_KEYS = [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'b' * 43}"]


def first_boot() -> ModuleType:
    """The program that a machine runs, as it lies in the role."""
    spec = importlib.util.spec_from_file_location("first_boot", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FIRST_BOOT = first_boot()
FIRST_BOOT.ASK_SECONDS = 60.0  # the unit tests get the least of a busy machine


def new_key(path: Path) -> Path:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "joining", "-f", str(path)]
    subprocess.run(words, check=True)
    return path


@dataclass(slots=True, kw_only=True)
class Site:
    """The controller's side."""

    folder: Path
    key: Path
    arrived: list[str] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)
    port: int = 0
    ssh_port: int = 22
    addresses: dict[str, str] = field(default_factory=lambda: dict(ADDRESSES))

    @property
    def tokens(self) -> Tokens:
        return Tokens(folder=self.folder / "secrets")

    @property
    def machines(self) -> list[Machine]:
        return [
            Machine(
                name=name,
                address=address,
                port=self.ssh_port,
                user="root",
                key_files=(self.folder / "key",),
                known_hosts=(self.folder / "known_hosts",),
            )
            for name, address in self.addresses.items()
        ]

    def arrivals(self, *names: str) -> Arrivals:
        """Waits for these machines; for all without any."""
        machines = [machine for machine in self.machines if not names or machine.name in names]
        return Arrivals(machines, self.tokens, self.key, lambda name, _: self.arrived.append(name))

    def token(self, name: str = "te3", *, seconds: float = 3600.0) -> Token:
        expires = time.time() + seconds
        return self.tokens.make({name: ADDRESSES[name]}, shared=False, expires=expires)[0]

    @contextmanager
    def waiting(self, on_call: Callable[[Letter], str] | None = None) -> Iterator[None]:
        heard = on_call or self.arrivals().on_call
        expected = [machine.calls_from for machine in self.machines]
        here = "::1" if ":" in self.addresses["te3"] else "127.0.0.1"
        with listening(here, 0, expected=expected, on_call=heard, report=self.reported.append) as self.port:
            yield

    def ask(self, token: Token, key: Path | None = None, **changed: object) -> dict[str, Any]:
        """A machine at 127.0.0.1 calls with this token; it believes this key."""
        public = (key or self.key).with_name(f"{(key or self.key).name}.pub").read_text()
        at = f"127.0.0.1:{self.port}"
        answer: dict[str, Any] = FIRST_BOOT.ask(at, call(**changed), token=token.words, key=public)
        return answer

    def known_hosts(self) -> str:
        path = self.folder / "known_hosts"
        return path.read_text() if path.exists() else ""


def made(folder: Path) -> Site:
    """A site whose controller has keys and no token."""
    (folder / "key.pub").write_text("ssh-ed25519 AAAA controller\n")
    return Site(folder=folder, key=new_key(folder / "join_key"))


def call(**changed: object) -> str:
    right = {"nonce": "n1", "image": "i", "machine": "m", "address": "127.0.0.1", "host_keys": KEYS}
    return json.dumps({**right, **changed})


def letter(token: Token, text: str, *, sender: str = "127.0.0.1") -> Letter:
    return Letter(sender=sender, token=token.id, mac=mac(token.secret, text), text=text)
