"""Reads a site's inventory as Ansible does."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from provision.edges import process
from provision.edges.playbook import CHECKOUT
from provision.errors import BadInput
from provision.inventory.machines import machines_in
from provision.inventory.members import Members, members_in
from provision.model import Machine


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
