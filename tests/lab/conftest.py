"""Real nodes for tests: a lab of their own, never the user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.lab import argv, record
from provision.lab.layout import Lab, folder_of
from provision.lab.requirements import missing

NAME = "test"
SUBNET = "10.77.200.0/24"
NODES = 4

Finished = subprocess.CompletedProcess[str]


def provision(*words: str, timeout_seconds: float = 300, check: bool = True) -> Finished:
    """Runs `provision ...` as a person would; fails the test with its output when `check` and it fails."""
    finished = subprocess.run(
        [sys.executable, "-m", "provision.cli", *words],
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check:
        assert finished.returncode == 0, f"provision {' '.join(words)}\n{finished.stdout}\n{finished.stderr}"
    return finished


@dataclass(frozen=True, slots=True, kw_only=True)
class LabUnderTest:
    """A lab that is up, and what a test does to its nodes."""

    lab: Lab

    @property
    def name(self) -> str:
        return self.lab.name

    @property
    def inventory(self) -> Path:
        return self.lab.inventory

    @property
    def nodes(self) -> list[str]:
        return [node.name for node in self.lab.nodes]

    def address(self, node: str) -> str:
        return next(found.address for found in self.lab.nodes if found.name == node)

    def run(self, node: str, command: str, *, timeout_seconds: float = 60, check: bool = True) -> Finished:
        """Runs a shell command on a node as root over ssh."""
        found = next(found for found in self.lab.nodes if found.name == node)
        words = argv.ssh(self.lab, found, [command])
        finished = subprocess.run(
            [words[0], "-o", "BatchMode=yes", *words[1:]],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check:
            assert finished.returncode == 0, f"{node}: {command}\n{finished.stdout}\n{finished.stderr}"
        return finished

    def out(self, node: str, command: str) -> str:
        """What a shell command prints on a node, without white space at the ends."""
        return self.run(node, command).stdout.strip()

    def provision(self, *words: str, check: bool = True) -> Finished:
        """Runs `provision lab WORDS --name` of this lab."""
        return provision("lab", *words, "--name", self.name, check=check)

    def power_off(self, *nodes: str) -> None:
        self.provision("power", "off", *nodes)

    def power_on(self, *nodes: str) -> None:
        self.provision("power", "on", *nodes)

    def reset(self, *nodes: str) -> None:
        """Gives nodes (all without any) back their blank state."""
        self.provision("reset", *nodes)

    def reboot(self, node: str, *, wait_seconds: float = 60) -> None:
        """Reboots a node from inside and waits until it answers again."""
        before = self.boot_id(node)
        self.run(node, "systemctl reboot", check=False)
        deadline = time.monotonic() + wait_seconds
        while True:
            after = self.run(node, "cat /proc/sys/kernel/random/boot_id", check=False)
            if after.returncode == 0 and after.stdout.strip() != before:
                return
            assert time.monotonic() < deadline, f"{node} did not come back: {after.stderr}"
            time.sleep(0.1)

    def boot_id(self, node: str) -> str:
        return self.out(node, "cat /proc/sys/kernel/random/boot_id")

    def status(self) -> dict[str, dict[str, Any]]:
        """What `provision lab status --json` says, by node."""
        found = json.loads(self.provision("status", "--json").stdout)
        return {node["name"]: node for node in found["nodes"]}


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Marks every test below this folder, so that `-m 'not lab'` leaves it out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab_machine() -> None:
    """This machine can carry a lab; where it cannot the test is skipped, or fails with REQUIRE_LAB=1."""
    lacks = missing()
    if lacks and os.environ.get("REQUIRE_LAB") == "1":
        pytest.fail(f"REQUIRE_LAB=1, but this machine lacks {', '.join(lacks)}")
    if lacks:
        pytest.skip(f"this machine lacks {', '.join(lacks)}")


@pytest.fixture(scope="session")
def lab(lab_machine: None) -> Iterator[LabUnderTest]:
    """Four nodes that are fresh when the session begins; `fresh_lab` makes them so again."""
    provision("lab", "down", "--name", NAME)
    provision("lab", "up", "--name", NAME, "--subnet", SUBNET, "--nodes", str(NODES), timeout_seconds=900)
    found = record.load(folder_of(NAME))
    assert found is not None
    yield LabUnderTest(lab=found)
    provision("lab", "down", "--name", NAME)


@pytest.fixture
def fresh_lab(lab: LabUnderTest) -> LabUnderTest:
    """The session's lab with every node on and in its blank state."""
    lab.reset()
    return lab
