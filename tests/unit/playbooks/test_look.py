"""A look tells which roles would change nothing; they end there until anything changes. By Ansible itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HOSTS = """\
all:
  vars: {ansible_connection: local, place: "{{ inventory_dir }}/{{ inventory_hostname }}"}
first: {children: {second: {}}}
second: {hosts: {te1: {}, te2: {}}}
"""
# Role `second` reads what role `first` writes, on its own node and on another one.
PLAYS = """\
- name: Look
  hosts: all
  gather_facts: false
  tasks:
    - name: Look
      look: {roles: [first, second], where: "{{ place }}/journal"}
- name: First
  hosts: first
  gather_facts: false
  tags: [first]
  roles: [first]
- name: Between
  hosts: all
  gather_facts: false
  tasks:
    - name: Read
      ansible.builtin.command: "true"
      when: between is defined
      changed_when: false
- name: Second
  hosts: second
  strategy: ansible.builtin.free
  gather_facts: false
  tags: [second]
  roles: [second]
"""
VARS = """\
{role}_path: "{{{{ inventory_dir }}}}/{of}/text"
{role}_observes: {{files: ["{{{{ {role}_path }}}}"]}}
{role}_settled: "{{{{ {role}_observed.files[{role}_path].text == {role}_wanted }}}}"
"""
TASKS = """\
- name: End where the look at the start found nothing to do
  ansible.builtin.meta: end_role
  when: "[inventory_hostname] | are_settled('{role}')"
- name: Observe
  observe: "{{{{ {role}_observes }}}}"
  register: {role}_observed
- name: Change
  ansible.builtin.include_tasks: change.yml
  when: {role}_observed.files[{role}_path] is none or not {role}_settled
"""
CHANGE = """\
- name: Write
  write_files:
    files: [{{path: "{{{{ {role}_path }}}}", content: "{{{{ {role}_wanted }}}}"}}]
    journal: ""
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "site.yml").write_text(PLAYS)
    for role, of in (("cluster", ""), ("first", "{{ inventory_hostname }}"), ("second", "te1")):
        folder = tmp_path / "roles" / role
        for name in ("defaults", "vars", "tasks"):
            (folder / name).mkdir(parents=True)
        if of:
            (folder / "defaults" / "main.yml").write_text(f"{role}_wanted: sound\n")
            (folder / "vars" / "main.yml").write_text(VARS.format(role=role, of=of))
            (folder / "tasks" / "main.yml").write_text(TASKS.format(role=role))
            (folder / "tasks" / "change.yml").write_text(CHANGE.format(role=role))
    for node in ("te1", "te2"):
        (tmp_path / node).mkdir()
        (tmp_path / node / "journal").touch()
        (tmp_path / node / "text").write_text("sound")
    return tmp_path


def tasks(site: Path, *words: str) -> list[str]:
    """What was done, as `task node`, in the order of the tasks."""
    finished = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.yml", "site.yml", *words],
        cwd=site,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(site / "roles"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found, task = [], ""
    for title, node in re.findall(r"^(?:TASK \[(.*?)\]|(?:ok|changed): \[(\w+)\])", finished.stdout, re.M):
        task = title or task
        if node:
            found.append(f"{task} {node}")
    return [line for line in found if not line.startswith("Look")]


def test_roles_that_would_change_nothing_run_no_task(site: Path) -> None:
    assert tasks(site) == []


def test_a_change_in_between_is_seen_by_every_role_on_every_node(site: Path) -> None:
    """Role `second` was settled while te1's text was what it wanted, and role `first` changes that text."""
    done = tasks(site, "-e", "first_wanted=other", "--limit", "te1,te2")

    assert set(done[:2]) == {"first : Observe te1", "first : Observe te2"}
    assert set(done[2:4]) == {"first : Write te1", "first : Write te2"}
    assert set(done[4:]) >= {"second : Observe te1", "second : Observe te2"}
    assert any(line.startswith("second : Write") for line in done)
    assert (site / "te1" / "text").read_text() == "sound"
    assert (site / "te2" / "text").read_text() == "other"


def test_a_change_of_one_node_makes_the_others_look_again(site: Path) -> None:
    (site / "te2" / "text").write_text("spoilt")

    done = tasks(site)

    assert done[:2] == ["first : Observe te2", "first : Write te2"]
    assert sorted(done[2:]) == ["second : Observe te1", "second : Observe te2"]


def test_a_command_that_says_that_it_changed_nothing_is_not_believed(site: Path) -> None:
    done = tasks(site, "-e", "between=yes")

    assert sorted(line for line in done if line.startswith("second")) == [
        *("second : Observe te1", "second : Observe te2"),
    ]


def test_a_node_that_was_never_converged_is_not_asked(site: Path) -> None:
    (site / "te2" / "journal").unlink()

    assert tasks(site) == ["first : Observe te2", "second : Observe te2"]


def test_without_the_look_roles_observe_themselves(site: Path) -> None:
    assert set(tasks(site, "--tags", "first")) == {"first : Observe te1", "first : Observe te2"}


def test_what_cannot_be_worked_out_is_not_settled(site: Path) -> None:
    (site / "te1" / "text").unlink()

    done = tasks(site)

    assert done[:2] == ["first : Observe te1", "first : Write te1"]
