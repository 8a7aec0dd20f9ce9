"""Nodes as folders and processes of this machine, a shell for ssh: what real nodes run, through pipes."""

from __future__ import annotations

import os
import pwd
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from provision.errors import CommandFailed, ProvisionError
from provision.store.delivery import Delivered, Delivery, Part, Plan
from provision.store.source import FolderSource, folder_source

# ssh NODE COMMAND: runs the command with the node's own folder in place of the caller's. A file `down-NODE`
# makes it unreachable, `flip-NODE` spoils a byte of what comes from there, once.
SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift 2; done
[ -e {root}/down-$1 ] && exit 255
command=$(printf '%s' "$2" | sed "s#{root}/te[0-9]*/#{root}/$1/#g")
if [ -e {root}/flip-$1 ]; then rm {root}/flip-$1; sh -c "$command" | python3 {root}/flip.py; exit; fi
exec sh -c "$command"
"""
FLIP = """
import os
seen = 0
while data := os.read(0, 1 << 16):
    if seen <= 1_000_000 < seen + len(data):
        data = bytearray(data)
        data[1_000_000 - seen] ^= 1
    seen += len(data)
    while data:
        data = data[os.write(1, data):]
"""


class ProcessChannel:
    """As edges/ssh_channel.py has it, to a process here."""

    def __init__(self, process: subprocess.Popen[bytes], here: tuple[bytes, bytes]) -> None:
        self.process, self._here = process, here
        self._seconds: float | None = None
        self._closed = threading.Event()

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        view = memoryview(data.replace(*self._here) if len(data) < 4096 else data)
        while view:
            view = view[os.write(self.process.stdin.fileno(), view) :]

    def read(self, size: int) -> bytes:
        assert self.process.stdout
        waited = 0.0
        while not select.select([self.process.stdout], [], [], 0.1)[0]:
            waited += 0.1
            if self._closed.is_set():
                return b""
            if self._seconds is not None and waited > self._seconds:
                raise TimeoutError
        return os.read(self.process.stdout.fileno(), size)

    def silence(self, seconds: float | None) -> None:
        self._seconds = seconds

    def close(self) -> None:
        self._closed.set()


@dataclass
class ManyNodes:
    """Nodes te1, te2, ... below a folder, and what runs of each."""

    root: Path
    names: list[str]
    python: str = sys.executable
    running: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "bin").mkdir()
        (self.root / "bin" / "ssh").write_text(SSH.replace("{root}", str(self.root)))
        (self.root / "bin" / "ssh").chmod(0o755)
        (self.root / "bin" / "python3").symlink_to(self.python)
        (self.root / "flip.py").write_text(FLIP)
        for name in self.names:
            (self.root / name).mkdir()
            self.running[name] = []

    def store(self, name: str) -> Path:
        return self.root / name / "store"

    def door(self, name: str):  # type: ignore[no-untyped-def]
        own = (f"{self.root}/te1/".encode(), f"{self.root}/{name}/".encode())

        @contextmanager
        def opened(argv: Sequence[str]) -> Iterator[ProcessChannel]:
            if (self.root / f"down-{name}").exists():
                raise ConnectionRefusedError("nothing listens there")
            process = subprocess.Popen(
                [word.replace(own[0].decode(), own[1].decode()) for word in argv],
                env={**os.environ, "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.running[name].append(process)
            try:
                yield ProcessChannel(process, own)
            except ProvisionError:
                raise
            except Exception as e:  # as edges/ssh.py does with whatever ends a connection's block
                raise CommandFailed(f"reach {name}", found=str(e), fix="Try again.") from e
            finally:
                process.kill()
                process.communicate()

        return opened

    def kill(self, name: str) -> None:
        """What runs of a node, and nobody reaches it any more."""
        (self.root / f"down-{name}").touch()
        self.stop(name)

    def stop(self, name: str) -> None:
        for process in self.running[name]:
            process.kill()

    def plan(self, source: FolderSource, **other: object) -> Plan:
        user = pwd.getpwuid(os.geteuid()).pw_name
        values = {"name": "model", "digest": source.digest, "store": str(self.store("te1")), "user": user}
        return Plan(**{**values, "reserve_bytes": 0, "lost_seconds": 3.0, **other})  # type: ignore[arg-type]

    def delivery(self, source: FolderSource, on_change=lambda _: None, **other: object) -> Delivery:  # type: ignore[no-untyped-def]
        doors = {name: self.door(name) for name in self.names}
        return Delivery(self.plan(source, **other), doors, source, on_change)

    def deliver(self, source: FolderSource, **other: object) -> Delivered:
        return self.delivery(source, **other).run()

    def tree(self, name: str, source: FolderSource) -> Path:
        return self.store(name) / "trees" / f"model-{source.digest}"


def model(folder: Path, *sizes: int) -> FolderSource:
    """Files of random bytes, and a small one."""
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        (folder / f"{number}.safetensors").write_bytes(os.urandom(size))
    (folder / "config.json").write_text("{}")
    return folder_source(folder, "model")


def shown(parts: Mapping[str, Part]) -> dict[str, int]:
    return {name: part.said.bytes if part.said else 0 for name, part in parts.items()}
