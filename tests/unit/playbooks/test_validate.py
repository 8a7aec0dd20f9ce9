"""validate.yml reads a site as Ansible does, touches no node and lists every problem."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HOSTS = """\
cluster:
  hosts:
    te1: {ansible_host: 192.0.2.1}
    te2: {ansible_host: 192.0.2.2}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "group_vars" / "all").mkdir(parents=True)
    (folder / "00-groups.yml").symlink_to(ROOT / "inventory" / "groups.yml")
    (folder / "hosts.yml").write_text(HOSTS)
    return folder


def validate(site: Path | None, *words: str) -> tuple[int, str]:
    playbook = Path(sys.executable).parent / "ansible-playbook"
    inventory = [] if site is None else ["-i", str(site)]
    finished = subprocess.run(
        [playbook, "playbooks/validate.yml", *inventory, *words],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return finished.returncode, finished.stdout + finished.stderr


def set_variables(site: Path, text: str) -> None:
    (site / "group_vars" / "all" / "site.yml").write_text(text)


def test_the_example_is_sound() -> None:
    code, output = validate(ROOT / "inventory" / "example", "-e", "validate_sources=false")

    assert code == 0, output


def test_all_problems_are_listed_with_file_and_line(site: Path) -> None:
    (site / "hosts.yml").write_text(HOSTS.replace("192.0.2.2", "192.0.2.1"))
    set_variables(site, "---\nssh_trsut_user: root\n")

    code, output = validate(site, "-e", "validate_sources=false")

    assert code != 0
    assert "2 problem(s), no node was touched" in output
    assert "te1 and te2 have one address, 192.0.2.1" in output
    assert "all/site.yml:2: no role takes the variable ssh_trsut_user. Did you mean ssh_trust_user?" in output


def test_a_source_that_does_not_answer_is_named(site: Path) -> None:
    set_variables(site, "base_packages_apt_source: http://127.0.0.1:9/apt\n")

    code, output = validate(site)

    assert code != 0
    assert "http://127.0.0.1:9/apt/Release does not answer" in output


def test_a_template_of_the_site_is_seen_as_the_roles_see_it(site: Path) -> None:
    set_variables(site, 'cluster_address: "{{ wrong }}"\nwrong: 127.0.0.1\n')

    code, output = validate(site, "-e", "validate_sources=false")

    assert code != 0
    assert "a loopback address" in output


def test_a_run_without_an_inventory_is_refused() -> None:
    code, output = validate(None)

    assert code != 0
    assert "the group cluster has no machines" in output


def test_an_inventory_that_cannot_be_read_is_refused(site: Path) -> None:
    (site / "hosts.yml").write_text("cluster: [")

    code, output = validate(site)

    assert code != 0
    assert "hosts.yml" in output
