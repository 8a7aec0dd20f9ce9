"""What somebody changed by hand is put right by the next site.yml; two controllers are kept apart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.edges import cluster_lock
from tests.lab.conftest import ROOT, Finished, LabUnderTest, changed, playbook

DROP_IN = "/etc/ssh/sshd_config.d/10-clusterwright.conf"
STATE = (
    "sshd -T | grep ^passwordauthentication; systemctl is-active chrony; systemctl is-enabled chrony; "
    "findmnt -no FSTYPE /data; getent hosts te1 te4; command -v tmux"
)
DRIFT = (
    f"sed -i 's/PasswordAuthentication no/PasswordAuthentication yes/' {DROP_IN} && systemctl restart ssh",
    "systemctl disable --now chrony",
    "umount /data",
    "sed -i '/te1$/d' /etc/hosts; echo 10.9.9.9 te4 >> /etc/hosts",
    "apt-get -qq remove tmux",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What te3 said of itself before and after a run of site.yml, that run, and the next one."""

    before: list[str]
    after: list[str]
    first: Finished
    next: Finished


@pytest.fixture(scope="module")
def repair(converged_lab: LabUnderTest) -> Repair:
    """site.yml after somebody's hand was in much of te3."""
    lab = converged_lab
    for command in DRIFT:
        lab.run("te3", command, timeout_seconds=120)
    before = lab.run("te3", STATE, check=False).stdout.split()
    first = playbook(lab)
    return Repair(before=before, first=first, after=lab.out("te3", STATE).split(), next=playbook(lab))


def test_drift_is_repaired_by_one_run_and_the_next_changes_nothing(
    converged_lab: LabUnderTest, repair: Repair
) -> None:
    lab, counts = converged_lab, changed(repair.first)

    assert repair.before[:4] == ["passwordauthentication", "yes", "inactive", "disabled"]
    assert repair.after == [
        *("passwordauthentication", "no", "active", "enabled", "ext4"),
        *(lab.address("te1"), "te1", lab.address("te4"), "te4", "/usr/bin/tmux"),
    ]
    assert counts["te3"] >= 5
    assert {node: count for node, count in counts.items() if count} == {"te3": counts["te3"]}
    assert changed(repair.next) == dict.fromkeys(lab.nodes, 0)


def tasks_of(run: Finished) -> dict[str, set[str]]:
    """The roles of which a task ran, and on which nodes."""
    found: dict[str, set[str]] = {}
    role = ""
    for title, node in re.findall(
        r"^(?:TASK \[(.*?)\]|(?:ok|changed): \[([\w.-]+)\])", run.stdout, re.MULTILINE
    ):
        role = title.partition(" : ")[0] if title else role
        if node:
            found.setdefault(role, set()).add(node)
    return found


def test_a_run_without_drift_asks_each_node_once_and_tests_the_cluster(
    converged_lab: LabUnderTest, repair: Repair
) -> None:
    every = set(converged_lab.nodes)

    assert tasks_of(repair.next) == {
        "node_access": every,
        "See which roles would change nothing": every,
        "smoke_test": {"te1"},
    }


# In the gate tests/unit/playbooks/test_look.py asks it of ansible-playbook and nodes that are folders.
@pytest.mark.long
def test_what_the_look_said_of_every_node_is_forgotten_once_one_has_changed(
    converged_lab: LabUnderTest,
) -> None:
    lab, every = converged_lab, set(converged_lab.nodes)
    lab.run("te3", "rm /etc/ssh/ssh_known_hosts")

    repaired = playbook(lab)
    ran = tasks_of(repaired)

    assert {node for node, count in changed(repaired).items() if count} == {"te3"}
    assert {"host_names", "job_user"}.isdisjoint(ran)
    assert ran["ssh_trust"] == ran["base_packages"] == ran["data_disk"] == ran["runtime"] == every
    assert changed(playbook(lab)) == dict.fromkeys(lab.nodes, 0)


# In the gate test_limited has a second controller.
@pytest.mark.long
def test_a_second_controller_is_refused_by_name_until_the_first_is_gone(converged_lab: LabUnderTest) -> None:
    lab, secrets = converged_lab, converged_lab.lab.folder / "secrets"
    words = [Path(sys.executable).parent / "ansible-playbook", "playbooks/site.yml", "-i", lab.inventory]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 60
        while cluster_lock.holder(secrets) is None:
            assert time.monotonic() < deadline, "the first run did not take the cluster"
            time.sleep(0.1)
        second = playbook(lab, "--tags", "node_access", check=False)
        checked = playbook(lab, "--tags", "node_access", "--check")
        first.kill()

    said = " ".join((second.stdout + second.stderr).split())
    assert second.returncode != 0
    assert f"site.yml holds it: process {first.pid} on {os.uname().nodename}, since 20" in said
    assert checked.returncode == 0
    assert playbook(lab, "--tags", "node_access").returncode == 0
