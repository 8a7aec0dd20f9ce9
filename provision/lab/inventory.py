"""The inventory of a lab: what a person would write for a site of these machines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from provision.lab.layout import MIRROR_PORT, Lab
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

# The lab's nodes have no route out: they install from this machine, as behind an air gap.
lab_mirror: http://{lab.gateway}:{MIRROR_PORT}
"""


def write(lab: Lab) -> None:
    """Writes the inventory into the lab's folder, with a link to the groups that all sites share."""
    for name, text in render(lab).items():
        write_file(lab.inventory / name, text)
    groups = lab.inventory / "00-groups.yml"
    with suppress(FileNotFoundError):
        groups.unlink()
    groups.symlink_to(_GROUPS)
