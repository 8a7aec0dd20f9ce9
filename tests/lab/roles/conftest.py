"""site.yml and single roles, run by ansible-playbook as a person would on the nodes of the test lab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
_RECAP = re.compile(r"^(\S+)\s+: (ok=.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A playbook that ended: its status, its output, its counts by node and its wall time."""

    returncode: int
    output: str
    counts: dict[str, dict[str, int]]
    seconds: float

    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by node."""
        return {node: counts["changed"] for node, counts in self.counts.items() if node != "localhost"}


def run_playbook(inventory: Path, *words: str) -> Run:
    playbook = Path(sys.executable).parent / "ansible-playbook"
    started = time.monotonic()
    finished = subprocess.run(
        [playbook, "playbooks/site.yml", "-i", inventory, *words],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": _path()},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    output = finished.stdout + finished.stderr
    recap = output.partition("PLAY RECAP")[2]
    counts = {node: _numbers(fields) for node, fields in _RECAP.findall(recap)}
    seconds = time.monotonic() - started
    return Run(returncode=finished.returncode, output=output, counts=counts, seconds=seconds)


def _path() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def _numbers(fields: str) -> dict[str, int]:
    return {name: int(value) for name, value in (field.split("=") for field in fields.split())}


Play = Callable[..., Run]


@pytest.fixture(scope="module")
def blank_lab(lab: Any) -> Any:
    """The session's lab in its blank state, once for a module; nothing is known about its host keys."""
    lab.reset()
    shutil.rmtree(lab.lab.folder / "secrets", ignore_errors=True)
    return lab


@pytest.fixture(scope="module")
def play(blank_lab: Any) -> Play:
    """Runs site.yml on the lab: `play("host_names", "ssh_trust", flags=["--check"])`."""

    def run(
        *roles: str, flags: tuple[str, ...] = (), ok: bool = True, inventory: Path = blank_lab.inventory
    ) -> Run:
        tags = ["--tags", ",".join(roles)] if roles else []
        finished = run_playbook(inventory, *tags, *flags)
        if ok:
            assert finished.returncode == 0, finished.output
        return finished

    return run
