"""The inventory of a lab: what a person would write for a site of these machines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from provision.lab.layout import MIRROR_PORT, Lab, mirror_name
from provision.lab.record import write_file

_GROUPS = Path(__file__).parents[2] / "inventory" / "groups.yml"


def render(lab: Lab) -> Mapping[str, str]:
    """The text of each file of the lab's inventory, by its path in the inventory's folder."""
    return {"hosts.yml": _hosts(lab), "group_vars/all/lab.yml": _variables(lab)}


def _hosts(lab: Lab) -> str:
    lines = [f"    {node.name}: {{ansible_host: {node.address}}}" for node in lab.nodes]
    return "\n".join(["---", "# Adding a node is one line.", "cluster:", "  hosts:", *lines, ""])


def _variables(lab: Lab) -> str:
    return f"""\
---
# Written by `provision lab up`: how the lab's machines are reached and where they install from.
cluster_name: {lab.name}
ansible_user: root
ansible_ssh_private_key_file: {lab.ssh_key}
ansible_ssh_common_args: >-
  -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes
  -o UserKnownHostsFile={lab.known_hosts}
ansible_control_path_dir: {lab.folder}/connections

# What the roles keep for this cluster goes with the lab, as the connections above do.
ssh_trust_secrets_path: {lab.folder}/secrets

# The nodes have no route out: they install from this machine, as behind an air gap.
lab_mirror: http://{lab.gateway}:{MIRROR_PORT}
lab_mirror_folder: >-
  {{{{ lookup('ansible.builtin.env', 'XDG_CACHE_HOME') or lookup('ansible.builtin.env', 'HOME') ~ '/.cache'
  }}}}/clusterwright/{mirror_name(lab.release)}/current
lab_mirror_content: "{{{{ lookup('ansible.builtin.file', lab_mirror_folder ~ '/mirror.json') | from_json }}}}"
lab_mirror_environment: >-
  {{{{ lab_mirror_content.environments[cluster_environment_name] | mandatory(
  "the mirror lacks this environment: provision lab mirror --environment " ~ cluster_environment_name) }}}}
base_packages_apt_source: "{{{{ lab_mirror }}}}/apt"
base_packages_apt_key: "{{{{ lookup('ansible.builtin.file', lab_mirror_folder ~ '/apt/key.asc') }}}}"
miniconda_installer_source: "{{{{ lab_mirror }}}}/{{{{ lab_mirror_content.miniconda.installer }}}}"
miniconda_installer_sha256: "{{{{ lab_mirror_content.miniconda.sha256 }}}}"
miniconda_channels: ["{{{{ lab_mirror }}}}/{{{{ lab_mirror_content.conda.channel }}}}"]
cluster_environment_kind: auto
conda_env_channel: "{{{{ miniconda_channels[0] }}}}"
conda_env_conda_lock: "{{{{ lab_mirror_folder }}}}/{{{{ lab_mirror_environment.conda_lock }}}}"
conda_env_wheel_source: "{{{{ lab_mirror }}}}/{{{{ lab_mirror_environment.wheels }}}}"
conda_env_space_gib: 3
time_sync_pools: []

# A node shares this machine's kernel: it may raise its limits to the kernel's defaults, and set only the
# parameters of its own network. The GPUs in its /sys are this machine's.
host_tuning_memlock: "8192"
host_tuning_nofile: 16384
host_tuning_sysctl:
  net.core.somaxconn: "4096"
  net.ipv4.tcp_rmem: 4096 131072 134217728
  net.ipv4.tcp_wmem: 4096 131072 134217728
nvidia_gpu_enabled: false

# All nodes share this machine's memory bandwidth: larger messages would only measure it longer.
smoke_test_max_bytes: 1048576
"""


def write(lab: Lab) -> None:
    """Writes the inventory into the lab's folder, with a link to the groups that all sites share."""
    for name, text in render(lab).items():
        write_file(lab.inventory / name, text)
    groups = lab.inventory / "00-groups.yml"
    with suppress(FileNotFoundError):
        groups.unlink()
    groups.symlink_to(_GROUPS)
