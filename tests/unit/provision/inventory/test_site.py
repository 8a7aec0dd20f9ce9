"""An inventory is read as Ansible and OpenSSH read it; both are asked, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.inventory.members import Members
from provision.inventory.site import read_as_roles, read_members, read_site, read_whole, secrets_of
from provision.model import Machine, Sudo

YAML = """\
cluster:
  children:
    rack_a: {hosts: {te1: {}, te2: {ansible_host: 10.0.0.2, ansible_connection: local}}}
    rack_b:
      hosts:
        te3: {ansible_host: "{{ nowhere }}"}
        te4: {ansible_port: many}
        te5: {ansible_ssh_common_args: -o X=1}
  vars: {ansible_user: root, gateway: "10.0.0.9"}
"""
INI = """\
[cluster:children]
rack
[rack]
te1 ansible_host=10.0.0.1 ansible_port="{{ 2200 + 22 }}" ansible_ssh_user=ubuntu ansible_sudo_pass=x
[cluster:vars]
ansible_become=yes
ansible_ssh_common_args="-F none -J root@{{ gateway }}"
gateway=10.0.0.9
cluster_drained=True
"""


def read(path: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Machine]:
    return {machine.name: machine for machine in read_site(path, environment=environment)}


def test_children_ini_files_and_templates_are_read(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(INI)

    found = read(tmp_path / "hosts")["te1"]

    assert found.fault is None
    assert (found.address, found.port, found.user) == ("10.0.0.1", 2222, "ubuntu")
    assert found.sudo == Sudo(password="x")
    assert found.way[-5:] == ("-l", "root", "10.0.0.9", "-W", "[10.0.0.1]:2222")
    members, secrets = read_members(tmp_path / "hosts", environment=os.environ)
    assert members == Members(names=("te1",), drained=frozenset({"te1"}), leader="")
    assert secrets == secrets_of(tmp_path / "hosts", environment=os.environ) == tmp_path / "secrets"


def test_what_a_template_looks_up_by_the_name_of_a_collection_is_found(tmp_path: Path) -> None:
    line = "te1 ansible_host=10.0.0.1 ansible_user=\"{{ lookup('ansible.builtin.env', 'LOGIN') }}\"\n"
    (tmp_path / "hosts").write_text(f"[cluster]\n{line}")

    found = read(tmp_path / "hosts", {**os.environ, "LOGIN": "ubuntu"})["te1"]

    assert found.fault is None
    assert found.user == "ubuntu"


def test_each_fault_is_its_own_node_s_and_the_others_are_there(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(YAML)

    found = read(tmp_path)
    faults = {name: machine.fault.found if machine.fault else "" for name, machine in found.items()}

    assert faults["te1"] == ""
    assert faults["te2"] == "ansible_connection is local, by which only playbooks reach it"
    assert faults["te3"] == "ansible_host: 'nowhere' is undefined"
    assert "'many'" in faults["te4"]
    assert "Bad configuration option: x" in faults["te5"]
    assert list(found) == ["te1", "te2", "te3", "te4", "te5"]


def test_a_vault_and_settings_of_ansible_count(tmp_path: Path) -> None:
    (tmp_path / "vault").write_text("open\n")
    (tmp_path / "sudo").write_text("of a file\n")
    environment = {
        **os.environ,
        "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "vault"),
        "ANSIBLE_REMOTE_PORT": "2200",
    }
    vault = Path(sys.executable).parent / "ansible-vault"
    words = [vault, "encrypt_string", "--name", "ansible_become_password", "sesame"]
    secret = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    variables = tmp_path / "site" / "group_vars" / "cluster.yml"
    variables.parent.mkdir(parents=True)
    (tmp_path / "site" / "hosts.yml").write_text("cluster: {hosts: {te1: {ansible_become: true}}}\n")
    variables.write_text(secret)

    opened = read(tmp_path / "site", environment)["te1"]
    closed = read(tmp_path / "site")["te1"]
    variables.unlink()
    by_file = read(
        tmp_path / "site", {**environment, "ANSIBLE_BECOME_PASSWORD_FILE": str(tmp_path / "sudo")}
    )["te1"]

    assert opened.sudo == Sudo(password="sesame")
    assert opened.port == 2200
    assert closed.fault is not None
    assert "vault" in closed.fault.found
    assert by_file.sudo == Sudo(password="of a file")


def test_a_vault_as_a_file_without_its_password_is_answered_with_how_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open\n")
    secrets = tmp_path / "site" / "group_vars" / "all" / "vault.yml"
    secrets.parent.mkdir(parents=True)
    secrets.write_text("ansible_become_password: sesame\n")
    (tmp_path / "site" / "hosts.yml").write_text("cluster: {hosts: {te1: {}}}\n")
    vault = Path(sys.executable).parent / "ansible-vault"
    words = [vault, "encrypt", "--vault-password-file", tmp_path / "password", secrets]
    subprocess.run(words, capture_output=True, check=True)

    with pytest.raises(BadInput, match="ANSIBLE_VAULT_PASSWORD_FILE=FILE before the command"):
        read(tmp_path / "site")


def test_variables_are_worked_out_and_only_those_that_are_set(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        YAML.replace("vars: {", "vars: {cluster_user: '{{ ansible_user }}', ")
    )

    found = read_whole(tmp_path, ["cluster_user", "cluster_group"], environment=os.environ)

    assert found.variables["te1"] == {"cluster_user": "root"}
    assert found.members.names == tuple(found.variables)
    assert found.secrets == tmp_path / "secrets"


def test_what_is_not_set_is_what_the_roles_make_of_it(tmp_path: Path) -> None:
    said = (
        '{cluster_environment_kind: cpu, base_packages_names: [git, "{{ cluster_name }}"], cluster_name: x}'
    )
    (tmp_path / "hosts.yml").write_text(f"cluster: {{hosts: {{te1: {{}}}}, vars: {said}}}\n")
    wanted = [
        "base_packages_names",
        "conda_env_wheel_lock",
        "cluster_environment_chosen",
        "conda_env_channel",
    ]

    found = read_as_roles(tmp_path, wanted, environment=os.environ)["te1"]

    assert found["base_packages_names"] == ["git", "x"]
    assert found["conda_env_wheel_lock"].strip().endswith("/envs/llm/wheels-cpu.lock")
    assert found["cluster_environment_chosen"].strip() == "cpu"
    assert found["conda_env_channel"] == "conda-forge"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("all: {hosts: {te1: {}}}\n", "its group cluster has none"),
        ("", "its group cluster has none"),
        ("cluster: [te1]\n", "cluster"),
        ("cluster:\n\thosts: te1\n", "hosts.yml"),
    ],
)
def test_what_is_no_site_is_refused_with_the_cause(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "hosts.yml").write_text(text)

    with pytest.raises(BadInput) as refused:
        read(tmp_path / "hosts.yml")

    assert said in refused.value.found


def test_an_inventory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is none"):
        read(tmp_path / "none")
