"""Role environment_kind chooses once for all nodes and keeps it on the controller. By Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
HOSTS = """\
all:
  vars: {ansible_connection: local, cluster_environment_kind: auto}
  children: {cluster: {hosts: {te1: {}, te2: {}}}}
"""
PLAYS = """\
- name: Choose
  hosts: cluster
  gather_facts: false
  roles: [environment_kind]
- name: Go on
  hosts: cluster
  gather_facts: false
  tasks:
    - name: Show the kind
      ansible.builtin.debug: {msg: "{{ inventory_hostname }} goes on with {{ chosen }}"}
      vars: {chosen: "{{ environment_kind_choice.kind | default('what was said') }}"}
"""
A10 = {"name": "NVIDIA A10", "capability": "8.6"}


class Site:
    """Two nodes, which are this machine; an environment with locks of the kinds cpu, cuda124 and cuda130."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "secrets" / "environment_kinds.yml"
        environment = folder / "envs" / "llm"
        for each in (folder / "playbooks", environment):
            each.mkdir(parents=True)
        (folder / "envs" / "kinds.yml").symlink_to(ROOT / "envs" / "kinds.yml")
        for kind in ("cpu", "cuda124", "cuda130"):
            (environment / f"wheels-{kind}.lock").touch()
        (folder / "hosts.yml").write_text(HOSTS)
        (folder / "playbooks" / "site.yml").write_text(PLAYS)

    def run(self, *words: str, **variables: Any) -> tuple[int, str]:
        """What Ansible answered and said, in one line."""
        finished = subprocess.run(
            [
                Path(sys.executable).parent / "ansible-playbook",
                *("-i", "hosts.yml", "playbooks/site.yml", *words, "-e", json.dumps(variables)),
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_ROLES_PATH": str(ROOT / "playbooks" / "roles"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return finished.returncode, " ".join((finished.stdout + finished.stderr).split())

    def recorded(self) -> Any:
        return yaml.safe_load(self.record.read_text()) if self.record.exists() else None


def with_cards(**drivers: str) -> dict[str, Any]:
    """Has the nodes say that they have an A10 with these drivers; "" for no card."""
    nodes = {
        name: {
            "name": name,
            "driver": driver,
            "cards": [A10] if driver else [],
            "problem": "",
            "will_have": False,
        }
        for name, driver in drivers.items()
    }
    return {"said": nodes, "environment_kind_survey": "{{ said[inventory_hostname] }}"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_a_choice_is_said_recorded_and_kept_and_check_mode_writes_nothing(site: Site) -> None:
    checked, announced = site.run("--check")
    after_check = site.recorded()
    code, first = site.run()
    recorded = site.recorded()
    _, second = site.run(**with_cards(te1="580.95.05", te2="580.95.05"))

    assert (checked, code, after_check) == (0, 0, None), first
    for said in (announced, first):
        assert "llm is cpu: no node has an NVIDIA GPU" in said
        assert "te2 goes on with cpu" in said
        assert "te1 : ok=7 changed=1" in said
    assert recorded == {"llm": {"kind": "cpu", "why": "cpu: no node has an NVIDIA GPU"}}
    assert site.record.stat().st_mode & 0o777 == 0o600
    assert "Survey" not in second
    assert site.recorded() == recorded


def test_it_is_chosen_anew_when_that_is_said_and_for_this_environment_alone(site: Site) -> None:
    site.record.parent.mkdir()
    site.record.write_text("llm: {kind: cuda130, why: all}\nserve: {kind: cpu, why: so}\n")

    code, said = site.run(environment_kind_anew=True, **with_cards(te1="580.95.05", te2="550.54.15"))

    assert code == 0, said
    why = "cuda124 (torch 2.6.0, CUDA 12.4): te2 has driver 550.54.15, and cuda130 needs 580 or newer"
    assert f"llm is {why}" in said
    assert site.recorded() == {"llm": {"kind": "cuda124", "why": why}, "serve": {"kind": "cpu", "why": "so"}}


def test_who_cannot_run_the_others_kind_is_named_and_all_nodes_stop(site: Site) -> None:
    code, said = site.run(**with_cards(te1="580.95.05", te2="510.108.03"))

    assert code != 0
    assert "te2: cannot run cuda124 (torch 2.6.0, CUDA 12.4) as the others: it has driver 510.108.03" in said
    assert "needs 525 or newer; cuda130, which all others run, needs 580" in said
    assert "No node was changed" in said
    assert "te1: cannot" not in said
    assert "goes on with" not in said
    assert site.recorded() is None


def test_a_choice_is_not_made_without_a_node(site: Site) -> None:
    code, said = site.run("--limit", "te2")

    assert code != 0
    assert "The kind is chosen for all nodes, and te1 did not answer, or this run leaves it out" in said
    assert site.recorded() is None


def test_a_damaged_record_is_named_without_a_traceback(site: Site) -> None:
    site.record.parent.mkdir()
    site.record.write_text("cuda130\n")

    code, said = site.run()

    assert code != 0
    assert f"in {site.record}: it does not say that. Mend it, or move it away" in said
    assert "Traceback" not in said


def test_a_kind_that_is_named_is_taken_as_it_is(site: Site) -> None:
    code, said = site.run(cluster_environment_kind="cuda130")

    assert code == 0
    assert "Survey" not in said
    assert "te1 goes on with what was said" in said
    assert site.recorded() is None
