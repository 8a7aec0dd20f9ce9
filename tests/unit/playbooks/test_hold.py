"""A playbook holds the cluster while it runs, and leaves each node's last failure; by Ansible itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from provision.core.node_record import parse
from provision.edges import cluster_lock

ROOT = Path(__file__).parents[3]
HOSTS = """\
cluster:
  hosts:
    te1: {ansible_connection: local}
    te2: {ansible_host: 127.0.0.9, ansible_port: 9}
"""
PLAY = f"""\
- name: Hold
  ansible.builtin.import_playbook: {ROOT}/playbooks/hold.yml
- name: Work
  hosts: cluster
  gather_facts: false
  tasks:
    - name: Fail
      ansible.builtin.command: sh -c 'echo the reason >&2; exit 3'
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "play.yml").write_text(PLAY)
    return tmp_path


def run(site: Path, *flags: str) -> tuple[int, str]:
    words = [Path(sys.executable).parent / "ansible-playbook", site / "play.yml", "-i", site / "hosts.yml"]
    finished = subprocess.run(
        [*words, *flags],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return finished.returncode, " ".join((finished.stdout + finished.stderr).split())


def test_a_run_leaves_the_last_failure_of_each_node_and_lets_the_cluster_go(site: Path) -> None:
    status, _ = run(site)
    found = parse((site / "secrets" / "nodes.json").read_text())

    assert status != 0
    assert found["te1"].failure is not None
    assert (found["te1"].failure.said, found["te1"].failure.task) == ("the reason", "Fail")
    assert found["te2"].failure is not None
    assert "Connection refused" in found["te2"].failure.said
    assert cluster_lock.holder(site / "secrets") is None


def test_a_run_is_refused_while_a_stranger_holds_the_cluster(site: Path) -> None:
    """The stranger is a process that did not start the run, as another controller is."""
    hold = (
        "import sys, pathlib; from provision.edges import cluster_lock\n"
        "with cluster_lock.hold(pathlib.Path(sys.argv[1]), 'site.yml'): print(flush=True), sys.stdin.read()"
    )
    words = [sys.executable, "-c", hold, str(site / "secrets")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        status, said = run(site)
        stranger.kill()

    assert status != 0
    assert f"site.yml holds it: process {stranger.pid} on {os.uname().nodename}, since 20" in said
    assert "No node was touched" in said
    assert not (site / "secrets" / "nodes.json").exists()


def test_check_mode_leaves_nothing(site: Path) -> None:
    run(site, "--check")

    assert not (site / "secrets").exists()
