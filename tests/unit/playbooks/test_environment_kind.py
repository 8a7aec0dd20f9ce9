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
  roles: [environment_kind, nvidia_gpu]
- name: Go on
  hosts: cluster
  gather_facts: false
  tasks:
    - name: Show the kind
      ansible.builtin.debug: {msg: "{{ inventory_hostname }} goes on with {{ chosen }}"}
      vars: {chosen: "{{ environment_kind_choice.kind | default('what was said') }}"}
"""
# Python as the modules of a node get it: with that node's PCI bus and nvidia-smi.
PYTHON = """\
#!/bin/sh
exec unshare --map-root-user --mount sh -c '
set -e
mount -t tmpfs none /sys/bus/pci/devices
card=/sys/bus/pci/devices/0000:19:00.0
mkdir $card
echo 0x10de > $card/vendor; echo 0x030200 > $card/class; echo 0x{device} > $card/device
PATH={folder}:$PATH exec /usr/bin/python3 "$@"' sh "$@"
"""


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

    def give(self, node: str, *, device: str, smi: str) -> None:
        """Gives a node a card, by its PCI device number, and what nvidia-smi prints of it."""
        folder = self.folder / node
        folder.mkdir(exist_ok=True)
        for name, text in (
            ("python", PYTHON.format(device=device, folder=folder)),
            ("nvidia-smi", f"#!/bin/sh\necho '{smi}'\n"),
        ):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (self.folder / "host_vars").mkdir(exist_ok=True)
        said = f"ansible_python_interpreter: {folder}/python\n"
        (self.folder / "host_vars" / f"{node}.yml").write_text(said)

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


def give_a10(site: Site, **drivers: str) -> None:
    for node, driver in drivers.items():
        site.give(node, device="2236", smi=f"{driver}, 8.6, NVIDIA A10")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_a_choice_is_said_recorded_and_kept_and_check_mode_writes_nothing(site: Site) -> None:
    checked, announced = site.run("--check")
    after_check = site.recorded()
    code, first = site.run()
    recorded = site.recorded()
    give_a10(site, te2="580.95.05")
    _, second = site.run()

    assert (checked, code, after_check) == (0, 0, None), first
    for said in (announced, first):
        assert "llm is cpu: no node has an NVIDIA GPU" in said
        assert "te2 goes on with cpu" in said
        assert "te1 : ok=9 changed=1" in said
    assert recorded == {"llm": {"kind": "cpu", "why": "cpu: no node has an NVIDIA GPU"}}
    assert site.record.stat().st_mode & 0o777 == 0o600
    assert "Survey" not in second
    assert "te2: 1 x NVIDIA A10, driver 580.95.05; it has GPUs, and the kind cpu was chosen for" in second
    assert """run site.yml on all of them with -e '{"environment_kind_anew": true}'""" in second
    assert site.recorded() == recorded


def test_buses_and_drivers_decide_and_later_each_node_is_held_against_the_choice(site: Site) -> None:
    site.give("te1", device="2236", smi="535.183.01, 8.6, NVIDIA A10")
    site.give("te2", device="2330", smi="580.95.05, 9.0, NVIDIA H100 80GB HBM3")

    code, first = site.run()
    chosen = site.recorded()["llm"]["kind"]
    site.give("te1", device="1db1", smi="580.95.05, 7.0, Tesla V100-SXM2-16GB")
    kept, again = site.run()
    site.record.write_text("llm: {kind: cuda130, why: te2 alone was there}\n")
    refused, later = site.run()

    assert (code, kept, chosen) == (0, 0, "cuda124"), first
    assert "te1 has driver 535.183.01, and cuda130 needs 580 or newer" in first
    assert "te1 goes on with" in again
    assert refused != 0
    assert "te1: 1 x Tesla V100-SXM2-16GB, driver 580.95.05; it has Tesla V100-SXM2-16GB of compute" in later
    assert (
        "It runs cuda118, cuda124, cuda126 and cuda128 (cluster_environment_kind). The kind cuda130" in later
    )
    assert "te1 goes on with" not in later
    assert "te2 goes on with" in later


def test_it_is_chosen_anew_when_that_is_said_and_for_this_environment_alone(site: Site) -> None:
    site.record.parent.mkdir()
    site.record.write_text("llm: {kind: cuda130, why: all}\nserve: {kind: cpu, why: so}\n")
    give_a10(site, te1="580.95.05", te2="550.54.15")

    code, said = site.run(environment_kind_anew=True)

    assert code == 0, said
    why = "cuda124 (torch 2.6.0, CUDA 12.4): te2 has driver 550.54.15, and cuda130 needs 580 or newer"
    assert f"llm is {why}" in said
    assert site.recorded() == {"llm": {"kind": "cuda124", "why": why}, "serve": {"kind": "cpu", "why": "so"}}


def test_who_cannot_run_the_others_kind_is_named_and_all_nodes_stop(site: Site) -> None:
    give_a10(site, te1="580.95.05", te2="510.108.03")

    code, said = site.run()

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
