"""A cluster of an earlier version: site.yml of today upgrades it, and nobody is locked out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.lab import record
from provision.lab.layout import folder_of
from provision.lab.lock import hold
from tests.lab.conftest import JOB_USER, ROOT, Finished, LabUnderTest, changed, playbook, provision

# The first test makes, converges and upgrades a lab.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
EARLIER = "8a83588"
NAME, SUBNET = "upgrade", "10.77.225.0/24"
# What changes who is let in, or signs, asks for site.yml first.
COMMANDS = (
    ("node", "add", "te3", "--address", "10.77.225.13"),
    ("node", "replace", "te2", "--address", "10.77.225.13"),
    ("node", "remove", "te2"),
    ("node", "drain", "te2"),
    ("smoke",),
)
UNKNOWN = "neither the inventory nor this controller knows that key"
ONWARD = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The project as it was at an earlier commit, with a controller's environment of its own."""

    folder: Path

    @property
    def person(self) -> Path:
        """The private key of somebody whom no version of site.yml knows."""
        return self.folder / "person"

    def run(self, *words: str | Path, timeout_seconds: float) -> Finished:
        finished = subprocess.run(
            [self.folder / ".venv" / "bin" / words[0], *words[1:]],
            cwd=self.folder,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert finished.returncode == 0, f"{words}\n{finished.stdout}\n{finished.stderr}"
        return finished


@pytest.fixture(scope="module")
def earlier(lab_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "--output", folder / "project.tar", EARLIER],
        capture_output=True,
        text=True,
        check=False,
    )
    if archive.returncode != 0:
        pytest.skip(f"the history here lacks {EARLIER} (git fetch --unshallow): {archive.stderr.strip()}")
    shutil.unpack_archive(folder / "project.tar", folder, filter="data")
    subprocess.run(
        ["make", f"PYTHON={sys.executable}", "controller"], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    return Project(folder=folder)


@pytest.fixture(scope="module")
def upgraded(mirror: None, earlier: Project) -> Iterator[LabUnderTest]:
    """Two nodes that the earlier project made and proved, and a person's key on both."""
    with hold(f"the tests on lab {NAME}", wait_seconds=500):
        provision("lab", "down", "--name", NAME)
        words = ("lab", "up", "--name", NAME, "--subnet", SUBNET, "--nodes", "2")
        earlier.run("provision", *words, timeout_seconds=900)
        lab = record.load(folder_of(NAME))
        assert lab is not None
        earlier.run("ansible-playbook", "playbooks/site.yml", "-i", lab.inventory, timeout_seconds=900)
        groups = lab.inventory / "00-groups.yml"  # a link into the project, which a person pulls in place
        groups.unlink()
        groups.symlink_to(ROOT / "inventory" / "groups.yml")
        found = LabUnderTest(lab=lab)
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", earlier.person]
        subprocess.run(make, check=True)
        public = earlier.person.with_name("person.pub").read_text().strip()
        found.out_of_all(f"echo '{public}' >>/root/.ssh/authorized_keys")
        yield found
        provision("lab", "down", "--name", NAME)


def test_a_cluster_of_an_earlier_version_is_upgraded_and_nobody_is_locked_out(
    upgraded: LabUnderTest, earlier: Project
) -> None:
    site = str(upgraded.inventory)
    keys = "cat /root/.ssh/authorized_keys"
    before = upgraded.out("te1", keys).splitlines()

    refused = [provision(*words, "-i", site, check=False) for words in COMMANDS]
    checked = playbook(upgraded, "--check")
    unchanged = upgraded.out("te1", keys).splitlines()
    first = playbook(upgraded)
    second = playbook(upgraded)

    assert [one.returncode for one in refused] == [2] * len(COMMANDS)
    assert all("ansible-playbook playbooks/site.yml makes it" in one.stderr for one in refused)
    assert all(changed(checked).values())
    assert unchanged == before
    assert all(changed(first).values())
    assert changed(second) == {"te1": 0, "te2": 0}
    assert as_person(upgraded, earlier.person) == ["te1", "te2"]
    assert upgraded.out("te1", f"{ONWARD} te2 hostname", user=JOB_USER) == "te2"
    assert upgraded.out("te2", f"{ONWARD} te1 hostname", user=JOB_USER) == "te1"
    # Jobs were root's: the cluster's key is that of the user of jobs now, within limits, and root's no more.
    [taken] = set(before) - set(upgraded.out("te1", keys).splitlines())
    [limited] = upgraded.out("te1", f"cat ~{JOB_USER}/.ssh/authorized_keys").splitlines()
    assert limited.startswith(f'from="{upgraded.address("te1")},{upgraded.address("te2")}",restrict,pty ')
    assert limited.partition("pty ")[2] == taken
    assert "Permission denied" in upgraded.run("te1", f"{ONWARD} te2 hostname", check=False).stderr


def as_person(lab: LabUnderTest, key: Path) -> list[str]:
    """What each node says of its name to somebody with that key alone."""
    words = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(key)]
    known_hosts = ["-o", f"UserKnownHostsFile={lab.lab.known_hosts}"]
    said = []
    for node in lab.nodes:
        ask = ["ssh", *words, *known_hosts, f"root@{lab.address(node)}", "hostname"]
        said.append(
            subprocess.run(ask, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        )
    return said


def test_after_the_upgrade_it_is_proven_a_job_starts_and_the_audit_finds_nothing(
    upgraded: LabUnderTest,
) -> None:
    site = str(upgraded.inventory)
    proof = provision("smoke", "-i", site, "--max-bytes", "65536")
    job = upgraded.run("te1", "cd /root; zerorun --no-python hostname")
    audit = provision("audit", "-i", site, "--json", timeout_seconds=590, check=False)

    assert "PASS: 2 ranks on 2 nodes" in proof.stdout
    assert "2 ranks on te1, te2, proven by the controller" in job.stderr
    # The person's key is the one thing that neither the inventory nor this controller knows.
    assert [one["why"] for one in json.loads(audit.stdout)["findings"]] == [UNKNOWN, UNKNOWN]


def test_after_the_upgrade_a_node_is_drained_and_undrained(upgraded: LabUnderTest) -> None:
    site, hostfile = str(upgraded.inventory), "cat /etc/clusterwright/hostfile"

    provision("node", "drain", "te2", "-i", site)
    drained = upgraded.out("te1", hostfile)
    provision("node", "undrain", "te2", "-i", site)

    assert "te2" not in drained
    assert "te2" in upgraded.out("te1", hostfile)
