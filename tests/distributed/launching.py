"""Jobs on this machine: addresses of the loopback stand for nodes, so that no ssh is needed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A launcher that ended."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def free_port() -> int:
    """One below those that the kernel hands out, of which the tests beside these use thousands."""
    first_handed_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first_handed_out)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Launcher:
    """A running launcher whose job carries a mark in its environment, by which every process is found."""

    def __init__(
        self, folder: Path, *words: str, module: str = "runtime.launch.cli", gated: bool = False
    ) -> None:
        # A name that the launcher hands on to every rank.
        self.mark = f"TORCH_CW_TEST={uuid.uuid4().hex}"
        self._started = time.monotonic()
        name, value = self.mark.split("=")
        # No smoke test has proven this machine's loopback; tests/lab/test_gate.py is about the gate.
        gate = ["--no-gate"] if module == "runtime.launch.cli" and not gated else []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *module.split(" "), *gate, *words],
            cwd=folder,
            env={**os.environ, name: value, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait(self, timeout_seconds: float = 60) -> Ended:
        try:
            out, err = self.process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"still running after {timeout_seconds} s\n{out}\n{err}") from None
        return Ended(
            returncode=self.process.returncode,
            stdout=out,
            stderr=err,
            seconds=time.monotonic() - self._started,
        )

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """Kills the launcher and whatever carries its mark; a test that passed leaves nothing to kill."""
        for pid in (self.process.pid, *self.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def processes(self, containing: str = "") -> list[int]:
        """Everything that carries the job's mark, the launcher left out."""
        return [pid for pid, words in _marked(self.mark) if pid != self.process.pid and containing in words]

    def wait_for(self, containing: str, count: int, timeout_seconds: float = 90) -> list[int]:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            found = self.processes(containing)
            if len(found) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{count} processes with {containing!r} did not appear")

    def leaves_nothing(self, timeout_seconds: float = 5) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.processes()


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def nodes(folder: Path, *slots: int) -> list[str]:
    """A hostfile of that many loopback nodes, and a port of their own: options for the launcher."""
    lines = [f"127.0.0.{number} slots={count}\n" for number, count in enumerate(slots, start=1)]
    hostfile = folder / "hostfile"
    hostfile.write_text("".join(lines))
    return ["--hostfile", str(hostfile), "--master-port", str(free_port())]


def script(folder: Path, text: str, name: str = "train.py") -> str:
    """The name of a program in the folder in which a job runs."""
    (folder / name).write_text(text)
    return name
