"""Reads a site's inventory as Ansible does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from provision.edges import process
from provision.edges.playbook import CHECKOUT
from provision.errors import BadInput
from provision.inventory.members import Members, members_in
from provision.model import Machine
from provision.privilege import sudo_of

_GROUP = "cluster"


def machines_in(listed: Mapping[str, Any], *, inventory: str, home: Path) -> list[Machine]:
    """The machines of the group `cluster`, in the inventory's order.

    Args:
        listed: the parsed output of `ansible-inventory --list`.
        home: of the user, whose key and known_hosts serve where the inventory names none.

    Raises:
        BadInput: there is no machine, or a variable is a template that only Ansible can read.
    """
    names = listed.get(_GROUP, {}).get("hosts", [])
    if not names:
        raise BadInput(
            f"find the machines of {inventory}",
            found=f"its group {_GROUP} has none",
            fix="Name a site's folder with -i, for example inventory/lab.",
        )
    variables = listed.get("_meta", {}).get("hostvars", {})
    return [_machine(name, variables.get(name, {}), home) for name in names]


def _machine(name: str, variables: Mapping[str, Any], home: Path) -> Machine:
    arguments = _plain(name, variables, "ansible_ssh_common_args", "")
    known = re.search(r"UserKnownHostsFile=(\S+)", arguments)
    key = _plain(name, variables, "ansible_ssh_private_key_file", "~/.ssh/id_ed25519")
    return Machine(
        name=name,
        address=_plain(name, variables, "ansible_host", name),
        user=_plain(name, variables, "ansible_user", "root"),
        key_file=_expanded(key, home),
        known_hosts=_expanded(known[1] if known else "~/.ssh/known_hosts", home),
        sudo=sudo_of(name, variables),
    )


def _expanded(path: str, home: Path) -> Path:
    return home / path[2:] if path.startswith("~/") else Path(path)


def _plain(name: str, variables: Mapping[str, Any], variable: str, default: str) -> str:
    value = str(variables.get(variable, default))
    if "{{" in value:
        raise BadInput(
            f"read {variable} of {name}",
            found=f"it is a template: {value}",
            fix="Write its value; only Ansible reads templates.",
        )
    return value


def read_site(inventory: Path, *, environment: Mapping[str, str]) -> list[Machine]:
    """The machines of the site in the folder `inventory`.

    Raises:
        BadInput: there is no such folder, or Ansible cannot read it.
    """
    listed = _listed(inventory, environment)
    return machines_in(listed, inventory=str(inventory), home=Path.home())


def secrets_of(inventory: Path, *, environment: Mapping[str, str]) -> Path:
    """The controller's folder with the site's key and ledger, where role ssh_trust keeps them.

    Raises:
        BadInput: there is no such inventory, or Ansible cannot read it.
    """
    words = (sys.executable, "-m", "provision.inventory.secrets_folder", inventory.resolve())
    found = _answer(inventory, words, environment)
    folder = inventory if inventory.is_dir() else inventory.parent
    return Path(found) if found else folder.resolve() / "secrets"


def variables_of(inventory: Path, *, environment: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """What the inventory says of each node, in its order, templates as they are written.

    Raises:
        BadInput: there is no such inventory, or Ansible cannot read it.
    """
    listed = _listed(inventory, environment)
    variables = listed.get("_meta", {}).get("hostvars", {})
    return {name: variables.get(name, {}) for name in listed.get("cluster", {}).get("hosts", ())}


def read_members(inventory: Path, *, environment: Mapping[str, str]) -> Members:
    """Which nodes the site has, which of them are drained, and whose clock leads.

    Raises:
        BadInput: there is no such inventory, or Ansible cannot read it.
    """
    return members_in(_listed(inventory, environment))


def _listed(inventory: Path, environment: Mapping[str, str]) -> Mapping[str, Any]:
    program = Path(sys.executable).parent / "ansible-inventory"
    words = (program, "--inventory", inventory.resolve(), "--list")
    found: Mapping[str, Any] = json.loads(_answer(inventory, words, environment))
    return found


def _answer(inventory: Path, words: Sequence[str | Path], environment: Mapping[str, str]) -> str:
    """What a program says of an inventory, with the settings of ansible.cfg in the checkout."""
    if not inventory.exists():
        raise BadInput(f"read the inventory {inventory}", found="there is none", fix="Correct -i.")
    finished = process.run(words, timeout_seconds=60, env=environment, cwd=CHECKOUT, check=False)
    if finished.returncode != 0:
        raise BadInput(
            f"read the inventory {inventory}",
            found=finished.stderr.strip()[-500:],
            fix="ansible-playbook playbooks/validate.yml says what is wrong.",
        )
    return finished.stdout.strip()
