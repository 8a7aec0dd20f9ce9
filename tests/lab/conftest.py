"""Real nodes for tests: a lab of their own, never the user's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provision.lab import argv, record
from provision.lab.layout import Lab, folder_of
from provision.lab.lock import hold
from provision.lab.requirements import missing
from tests import forked

NAME = "test"
SUBNET = "10.77.200.0/24"
NODES = 4
# What nodes get: torch and our runtime. A test of one that holds more says so, since that takes minutes.
ENVIRONMENT = "torch"
PREFIX = f"/data/miniconda3/envs/{ENVIRONMENT}"
MIRROR = ("lab", "mirror", "--environment", ENVIRONMENT)
# Who runs jobs unless a site says otherwise (cluster_user), and where that user may write on nodes.
JOB_USER, JOBS = "trainer", "/data/jobs/trainer"

# Stands in ssh's place for Ansible: notes the machine of each call, then is ssh.
COUNTING_SSH = """\
#!/bin/bash
for word in "$@"; do case "$word" in 10.77.*) echo "$word" >> {log}; break;; esac; done
exec ssh "$@"
"""

Finished = subprocess.CompletedProcess[str]


def provision(
    *words: str, timeout_seconds: float = 300, check: bool = True, env: Mapping[str, str] | None = None
) -> Finished:
    """Runs `provision ...` as a person would; fails the test with its output when `check` and it fails."""
    if env is None:
        finished = forked.provision(words, timeout_seconds=timeout_seconds)
    else:  # which is read when it is imported
        finished = subprocess.run(
            [sys.executable, "-m", "provision.cli", *words],
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env=env,
        )
    if check:
        assert finished.returncode == 0, f"provision {' '.join(words)}\n{finished.stdout}\n{finished.stderr}"
    return finished


def as_user(user: str, command: str) -> str:
    """The shell command as another user, in its home; the process is that user's from the start."""
    rights = f"setpriv --reuid {user} --regid {user} --init-groups"
    return f"{rights} env HOME=/home/{user} USER={user} bash -c {shlex.quote(f'cd; {command}')}"


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

    def run(
        self, node: str, command: str, *, timeout_seconds: float = 60, check: bool = True, user: str = "root"
    ) -> Finished:
        """Runs a shell command on a node over ssh, as root or as another user in that user's home."""
        found = next(found for found in self.lab.nodes if found.name == node)
        command = command if user == "root" else as_user(user, command)
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

    def out(self, node: str, command: str, *, user: str = "root") -> str:
        """What a shell command prints on a node, without white space at the ends."""
        return self.run(node, command, user=user).stdout.strip()

    def out_of_all(self, command: str) -> list[str]:
        """What a shell command prints on each node, in the order of the nodes; all run at once."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            return list(pool.map(lambda node: self.out(node, command), self.nodes))

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
    """Marks every test below this folder, and those on the converged nodes: a lane of `make test`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            if isinstance(item, pytest.Function) and "site_lab" in item.fixturenames:
                item.add_marker(pytest.mark.four_nodes)
                item.add_marker(pytest.mark.timeout(1800))  # the first of them converges the nodes


@pytest.fixture(scope="session")
def lab_machine() -> None:
    """This machine can carry a lab; where it cannot the test is skipped, or fails with REQUIRE_LAB=1."""
    lacks = missing()
    if lacks and os.environ.get("REQUIRE_LAB") == "1":
        pytest.fail(f"REQUIRE_LAB=1, but this machine lacks {', '.join(lacks)}")
    if lacks:
        pytest.skip(f"this machine lacks {', '.join(lacks)}")


def use(environment: str, lab: Lab) -> None:
    """Has the inventory of a lab say which environment its nodes get."""
    said = lab.inventory / "group_vars" / "all" / "environment.yml"
    said.write_text(f"---\ncluster_environment_name: {environment}\n")


def made(
    name: str, subnet: str, nodes: int, *, snapshot: str = "", release: str = ""
) -> Iterator[LabUnderTest]:
    """A lab, fresh or from a snapshot, taken down at the end; another session that has it is waited for."""
    how = ("--from", snapshot) if snapshot else ("--subnet", subnet, "--nodes", str(nodes))
    how += ("--release", release) if release else ()
    with hold(f"the tests on lab {name}", wait_seconds=500):
        provision("lab", "down", "--name", name)
        provision("lab", "up", "--name", name, *how, timeout_seconds=900)
        found = record.load(folder_of(name))
        assert found is not None
        use(ENVIRONMENT, found)
        yield LabUnderTest(lab=found)
        provision("lab", "down", "--name", name)


@pytest.fixture(scope="session")
def lab(lab_machine: None) -> Iterator[LabUnderTest]:
    """Four nodes that are fresh when the session begins."""
    yield from made(NAME, SUBNET, NODES)


@pytest.fixture(scope="session")
def spare_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    """Two nodes that a test may reset, break and leave as they are."""
    yield from made("spare", "10.77.201.0/24", 2)


@pytest.fixture
def fresh_lab(lab: LabUnderTest) -> LabUnderTest:
    """The session's lab with every node on and in its blank state."""
    lab.reset()
    return lab


ROOT = Path(__file__).parents[2]
# Everything that a role could write, by name, mode and content; and the disk that it could format.
STATE = (
    "find /etc /usr /opt /root /home /data /var/lib/dpkg -xdev -path /root/.ansible -prune -o -type f "
    "-printf '%p %m ' -exec sha256sum {} + | sha256sum; head -c 1M /dev/vdb | sha256sum; "
    "sysctl net.core.somaxconn"
)


def playbook(lab: LabUnderTest, *words: str, timeout_seconds: float = 900, check: bool = True) -> Finished:
    """Runs `ansible-playbook playbooks/site.yml` (or the playbook named among the words) against a lab."""
    play = [] if any(word.startswith("playbooks/") for word in words) else ["playbooks/site.yml"]
    finished = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", *play, "-i", lab.inventory, *words],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check:
        assert finished.returncode == 0, f"{words}\n{finished.stdout}\n{finished.stderr}"
    return finished


def said_from(words: str, finished: Finished) -> str:
    """What a run of a playbook said from these words on, up to its next task, as one line."""
    said = " ".join(finished.stdout.split())
    return said[said.index(words) :].partition(" TASK [")[0]


RECAP = re.compile(r"^(?P<node>\S+) +: (?P<counts>(?:\w+=\d+ *)+)$", re.MULTILINE)


def recap(finished: Finished) -> dict[str, dict[str, int]]:
    """The recap of a playbook run: for each node how many tasks were ok, changed, unreachable, failed..."""
    return {
        found["node"]: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", found["counts"])}
        for found in RECAP.finditer(finished.stdout)
    }


def changed(finished: Finished) -> dict[str, int]:
    """How many tasks changed something, by node."""
    return {node: counts["changed"] for node, counts in recap(finished).items() if node != "localhost"}


@pytest.fixture(scope="session")
def mirror(lab_machine: None) -> None:
    """What the lab's nodes install from, built once on this machine."""
    provision(*MIRROR, timeout_seconds=1500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of site.yml that ended well, with its wall time."""

    finished: Finished
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FourRuns:
    """site.yml on blank nodes: twice in check mode, twice in earnest; the files around the first run."""

    before: list[str]
    after_check: list[str]
    first_check: Run
    first: Run
    second_check: Run
    second: Run


CERTIFICATE = "/etc/clusterwright/certificate.json"
FIRST_CERTIFICATE = "/root/first-certificate.json"

# The snapshot that `make frozen-site` makes: with it, tests on converged nodes begin in seconds.
SITE_FROM = os.environ.get("SITE_FROM", "")


@pytest.fixture(scope="session")
def site_lab(lab_machine: None) -> Iterator[LabUnderTest]:
    """Four nodes for site.yml, which no test resets."""
    yield from made("site", "10.77.202.0/24", 4, snapshot=SITE_FROM)


@pytest.fixture(scope="session")
def four_runs(mirror: None, site_lab: LabUnderTest) -> FourRuns:
    if SITE_FROM:
        pytest.skip(f"it begins with blank nodes, not with those of SITE_FROM={SITE_FROM}")

    def run(*words: str) -> Run:
        started = time.monotonic()
        finished = playbook(site_lab, *words)
        return Run(finished=finished, seconds=time.monotonic() - started)

    def state() -> list[str]:
        return [str((site_lab.lab.folder / "secrets").exists()), *site_lab.out_of_all(STATE)]

    return FourRuns(
        before=state(),
        first_check=run("--check", "--diff"),
        after_check=state(),
        first=run(),
        second_check=run("--check", "--diff"),
        second=run(),
    )


@pytest.fixture(scope="session")
def converged_lab(request: pytest.FixtureRequest, site_lab: LabUnderTest) -> LabUnderTest:
    """Four nodes after site.yml. A test that breaks a node mends it, or runs site.yml again."""
    if not SITE_FROM:
        request.getfixturevalue("four_runs")
    site_lab.out_of_all(f"cp -p {CERTIFICATE} {FIRST_CERTIFICATE}")
    return site_lab


def as_first_proven(lab: LabUnderTest) -> LabUnderTest:
    """The converged lab with the certificate of its first run, where the smoke test is not what is asked."""
    lab.out_of_all(f"cp -p {FIRST_CERTIFICATE} {CERTIFICATE}")
    return lab
