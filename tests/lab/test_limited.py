"""A run of site.yml on some nodes only: as held and as checked as one on all, and harmless to the others."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provision.edges import cluster_lock
from tests.lab.conftest import JOB_USER, ROOT, LabUnderTest, as_first_proven, changed, playbook, provision

# What tells a node of the others, how it lets them in, and what proves it.
FILES = (
    "cd /etc; sha256sum hosts ssh/ssh_known_hosts ssh/*_config.d/* ~/.ssh/*"
    " clusterwright/{cluster,environment,certificate}.json clusterwright/hostfile"
)
# Takes sshd's place: accepts, and hangs up at once.
HANGS_UP = """\
import socket, subprocess
subprocess.run(["systemctl", "stop", "ssh.socket", "ssh"])
server = socket.create_server(("", 22))
while True:
    server.accept()[0].close()
"""


@pytest.fixture(scope="module")
def proven_lab(converged_lab: LabUnderTest) -> LabUnderTest:
    """Proven by the controller: what a test on a node has proved since is none to site.yml."""
    return as_first_proven(converged_lab)


def test_a_limited_run_is_refused_beside_one_that_works(converged_lab: LabUnderTest) -> None:
    lab, secrets = converged_lab, converged_lab.lab.folder / "secrets"
    words = [Path(sys.executable).parent / "ansible-playbook", "playbooks/site.yml", "-i", lab.inventory]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 60
        while cluster_lock.holder(secrets) is None:
            assert time.monotonic() < deadline, "the first run did not take the cluster"
            time.sleep(0.1)
        second = playbook(lab, "--limit", "te2", "--tags", "node_access", check=False)
        first.kill()

    said = " ".join((second.stdout + second.stderr).split())
    assert second.returncode != 0
    assert (
        f"No node was touched. work on the cluster of {secrets}: site.yml holds it: process {first.pid}"
        in said
    )
    assert "te2" not in second.stdout


def test_a_limited_run_leaves_the_others_and_the_cluster_as_they_were(proven_lab: LabUnderTest) -> None:
    lab = proven_lab
    before, ledger = lab.out_of_all(FILES), (lab.lab.folder / "secrets" / "host_keys.yml").read_text()

    limited = playbook(lab, "--limit", "te2")

    assert changed(limited) == {"te2": 0}
    assert lab.out_of_all(FILES) == before
    assert (lab.lab.folder / "secrets" / "host_keys.yml").read_text() == ledger
    started = lab.run("te1", "cd /root && zerorun --no-python hostname", timeout_seconds=300)
    assert started.stdout.splitlines()[0] == "te1"
    asked = [f"ssh -o BatchMode=yes {node} hostname" for node in lab.nodes]
    assert [lab.out("te2", command, user=JOB_USER) for command in asked] == lab.nodes


def test_a_limited_run_repairs_its_node_alone(converged_lab: LabUnderTest) -> None:
    lab = converged_lab
    drift = "rm /etc/ssh/ssh_known_hosts; sed -i '/te1/d' /etc/hosts"
    before = lab.out("te2", FILES)
    for node in ("te1", "te2"):
        lab.out(node, drift)

    limited = playbook(lab, "--limit", "te2", "--skip-tags", "smoke_test")
    damaged = lab.run("te1", "test -e /etc/ssh/ssh_known_hosts", check=False).returncode
    playbook(lab, "--tags", "host_names,ssh_trust")

    assert set(changed(limited)) == {"te2"}
    assert lab.out("te2", FILES) == before
    assert damaged == 1


def test_status_shows_a_node_that_hangs_up_beside_the_others(converged_lab: LabUnderTest) -> None:
    lab = converged_lab
    lab.run("te2", f"systemd-run --quiet python3 -c {shlex.quote(HANGS_UP)}")
    deadline = time.monotonic() + 30
    while lab.run("te2", "true", check=False).returncode == 0:
        assert time.monotonic() < deadline, "te2 still answers"
    try:
        told = provision(
            "status", "-i", str(lab.inventory), check=False, env={**os.environ, "COLUMNS": "200"}
        )
    finally:
        lab.power_off("te2")
        lab.power_on("te2")

    said = told.stdout + told.stderr
    assert told.returncode == 1, said
    assert "hung up" in said or "no ssh server answers" in said
    assert said.count("answers") >= len(lab.nodes) - 1
    assert "Aborted" not in said
    assert "Traceback" not in said
