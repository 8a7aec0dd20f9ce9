"""validate.yml reads a site as Ansible does, touches no node and lists every problem."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
# What only a site can know, and this repository must not: where things come from.
OWN = """\
---
validate_sources: false
miniconda_installer_source: http://192.0.2.9/miniconda.sh
miniconda_installer_sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
conda_env_conda_lock: "{{ inventory_dir }}/conda.lock"
"""
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
    (folder / "group_vars" / "all" / "own.yml").write_text(OWN)
    (folder / "conda.lock").touch()
    return folder


def validate(site: Path | None, *words: str) -> tuple[int, str]:
    return play(Path("playbooks/validate.yml"), site, *words)


def play(playbook: Path, site: Path | None, *words: str) -> tuple[int, str]:
    inventory = [] if site is None else ["-i", str(site)]
    finished = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", playbook, *inventory, *words],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout + finished.stderr


def set_variables(site: Path, text: str) -> None:
    (site / "group_vars" / "all" / "site.yml").write_text(text)


def test_a_site_is_sound(site: Path) -> None:
    code, output = validate(site)

    assert code == 0, output


def test_the_example_lacks_only_what_a_site_must_say_itself(site: Path) -> None:
    own = f"@{site}/group_vars/all/own.yml"

    code, output = validate(ROOT / "inventory" / "example", "-e", own, "-e", f"inventory_dir={site}")

    assert code == 0, output


def test_all_problems_are_listed_with_file_and_line(site: Path) -> None:
    (site / "hosts.yml").write_text(HOSTS.replace("192.0.2.2", "192.0.2.1"))
    set_variables(site, "---\nssh_trsut_user: root\n")

    code, output = validate(site)

    assert code != 0
    assert "No node was touched. 2 problem(s) of the inventory" in output
    assert "te1 and te2 have one address, 192.0.2.1" in output
    assert "all/site.yml:2: no role takes the variable ssh_trsut_user. Did you mean ssh_trust_user?" in output


def test_a_source_that_does_not_answer_is_named(site: Path) -> None:
    set_variables(site, "miniconda_installer_source: http://127.0.0.1:9/x.sh\nvalidate_sources: true\n")

    code, output = validate(site)

    assert code != 0
    assert "http://127.0.0.1:9/x.sh does not answer" in output


def test_a_template_of_the_site_is_seen_as_the_roles_see_it(site: Path) -> None:
    set_variables(site, 'cluster_address: "{{ wrong }}"\nwrong: 127.0.0.1\n')

    code, output = validate(site)

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


def test_a_role_that_is_left_has_no_nodes_and_what_it_takes_is_not_missing(
    site: Path, tmp_path: Path
) -> None:
    (site / "conda.lock").unlink()
    set_variables(
        site, "cluster_without: [time_sync, ssh_trust, sshd_policy, conda_env, runtime, smoke_test]\n"
    )
    playbook = tmp_path / "left.yml"
    task = {
        "name": "Say",
        "ansible.builtin.debug": {"msg": "ran={{ ansible_play_name }} in={{ group_names | join(',') }}"},
    }
    plays: list[dict[str, object]] = [{"import_playbook": str(ROOT / "playbooks" / "validate.yml")}]
    for group in ("time_sync", "host_names", "cluster", "smoke_test", "image_cleanup"):
        plays.append({"name": group, "hosts": group, "gather_facts": False, "tasks": [task]})
    playbook.write_text(yaml.safe_dump(plays))

    code, output = play(playbook, site)

    ran = {line.split("ran=")[1].split()[0] for line in output.splitlines() if "ran=" in line}
    seen = {line.split("in=")[1].strip('" ') for line in output.splitlines() if "in=" in line}
    assert code == 0, output
    assert ran == {"host_names", "cluster", "image_cleanup"}
    assert len(seen) == 1
    assert "host_tuning" in min(seen)
    left = {"time_sync", "ssh_trust", "sshd_policy", "conda_env", "runtime", "smoke_test"}
    assert not left & set(min(seen).split(","))


def test_a_role_that_is_left_is_named_where_another_needs_it(site: Path) -> None:
    set_variables(site, "---\ncluster_without: [ssh_trust]\n")

    code, output = validate(site)

    assert code != 0
    assert "all/site.yml:2: cluster_without lists ssh_trust, without which sshd_policy and" in output


def test_a_password_of_the_proxy_is_printed_nowhere(site: Path, tmp_path: Path) -> None:
    set_variables(site, "cluster_proxy: http://ann:hunter22@127.0.0.1:9\nvalidate_sources: true\n")
    playbook = tmp_path / "say.yml"
    say = {"name": "Say", "ansible.builtin.debug": {"msg": "by {{ cluster_proxy }}"}}
    told = {"name": "say", "hosts": "cluster", "gather_facts": False, "tasks": [say]}
    validated = {"import_playbook": str(ROOT / "playbooks" / "validate.yml")}
    playbook.write_text(yaml.safe_dump([validated, told]))

    refused, why = play(playbook, site)
    passed, output = play(playbook, site, "-vvv", "-e", "validate_sources=false")

    assert refused != 0
    assert "http://192.0.2.9/miniconda.sh does not answer" in why
    assert passed == 0, output
    assert "by http://********127.0.0.1:9" in output
    assert "hunter22" not in why + output
