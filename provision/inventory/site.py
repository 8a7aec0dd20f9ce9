"""Reads a site's inventory as Ansible does, and its connections as OpenSSH does."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.edges import process
from provision.edges.playbook import CHECKOUT
from provision.errors import BadInput, CommandFailed
from provision.inventory.members import MEMBER_VARIABLES, Members, members_in
from provision.inventory.ssh_settings import Place, faulty, machine_of, question
from provision.model import Machine

_READ_SECONDS, _SSH_SECONDS = 60.0, 20.0
_SHOWN, _LINES = 500, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site read once: its machines and members, where the controller keeps its key and ledger, and of each
    node those of the wanted variables that are set.
    """

    machines: list[Machine]
    members: Members
    secrets: Path
    variables: dict[str, Mapping[str, Any]]


def read_whole(inventory: Path, wanted: Sequence[str] = (), *, environment: Mapping[str, str]) -> Site:
    """Everything of a site.

    Raises:
        BadInput: there is no such inventory, Ansible cannot read it, or it has no machine.
        MissingRequirement: there is no ssh here.
    """
    read = _read(inventory, environment, [*MEMBER_VARIABLES, *wanted])
    variables = {name: node["variables"] for name, node in read["nodes"].items()}
    return Site(
        machines=_machines(inventory, read["nodes"], environment),
        members=members_in(variables),
        secrets=_secrets(inventory, read),
        variables=variables,
    )


def read_site(inventory: Path, *, environment: Mapping[str, str]) -> list[Machine]:
    """The machines of the group `cluster`, in the inventory's order.

    One whose settings cannot be worked out says so in its `fault`, and the others are there.

    Raises:
        BadInput: there is no such inventory, Ansible cannot read it, or it has no machine.
        MissingRequirement: there is no ssh here.
    """
    return _machines(inventory, _read(inventory, environment)["nodes"], environment)


def _machines(
    inventory: Path, nodes: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str]
) -> list[Machine]:
    if not nodes:
        raise BadInput(
            f"find the machines of {inventory}",
            found="its group cluster has none",
            fix="Name a site's folder with -i, for example inventory/lab.",
        )
    account = pwd.getpwuid(os.getuid())  # as ssh does: HOME is not asked
    place = Place(
        home=Path(account.pw_dir),
        user=account.pw_name,
        environment=environment,
        exists=os.path.exists,
    )
    return [_machine(name, node, place) for name, node in nodes.items()]


def _machine(name: str, node: Mapping[str, Any], place: Place) -> Machine:
    if node["fault"]:
        return faulty(name, node["fault"])
    try:
        words = question(node["login"])
        answer = process.run(words, timeout_seconds=_SSH_SECONDS, env=place.environment, check=False)
        if answer.returncode != 0:
            said = " ".join(answer.stderr.split())[-_SHOWN:] or f"status {answer.returncode}"
            return faulty(name, f"ssh refuses its settings: {said}")
        return machine_of(name, node["login"], answer.stdout, place)
    except (BadInput, CommandFailed) as e:
        return faulty(name, e.found, e.fix)


def read_as_roles(
    inventory: Path, wanted: Sequence[str], *, environment: Mapping[str, str]
) -> dict[str, Mapping[str, Any]]:
    """Of each node these variables as the roles see them: what the site does not set is their default.

    Raises:
        BadInput: there is no such inventory, Ansible cannot read it or one of these, or it has no machine.
    """
    nodes = _read(inventory, environment, wanted, "--as-roles")["nodes"]
    wrong = {name: node["fault"] for name, node in nodes.items() if node["fault"]}
    if wrong or not nodes:
        raise BadInput(
            f"read the inventory {inventory}",
            found="; ".join(f"{name}: {fault}" for name, fault in wrong.items()) or "it has no machine",
            fix="ansible-playbook playbooks/validate.yml says what is wrong.",
        )
    return {name: node["variables"] for name, node in nodes.items()}


def secrets_of(inventory: Path, *, environment: Mapping[str, str]) -> Path:
    """The controller's folder with the site's key and ledger, where role ssh_trust keeps them.

    Raises:
        BadInput: there is no such inventory, or Ansible cannot read it.
    """
    return _secrets(inventory, _read(inventory, environment))


def _secrets(inventory: Path, read: Mapping[str, Any]) -> Path:
    found = read["secrets"]
    folder = inventory if inventory.is_dir() else inventory.parent
    return Path(found) if found else folder.resolve() / "secrets"


def read_members(inventory: Path, *, environment: Mapping[str, str]) -> tuple[Members, Path]:
    """Which nodes the site has, which of them are drained and whose clock leads; and `secrets_of` it.

    Raises:
        BadInput: there is no such inventory, or Ansible cannot read it.
    """
    read = _read(inventory, environment, MEMBER_VARIABLES)
    members = members_in({name: node["variables"] for name, node in read["nodes"].items()})
    return members, _secrets(inventory, read)


def _read(
    inventory: Path, environment: Mapping[str, str], wanted: Sequence[str] = (), *options: str
) -> dict[str, Any]:
    """What Ansible makes of an inventory, with the settings of ansible.cfg in the checkout."""
    if not inventory.exists():
        raise BadInput(f"read the inventory {inventory}", found="there is none", fix="Correct -i.")
    words: tuple[str | Path, ...] = (
        sys.executable,
        "-m",
        "provision.inventory.as_ansible",
        *options,
        inventory.resolve(),
        *wanted,
    )
    finished = process.run(words, timeout_seconds=_READ_SECONDS, env=environment, cwd=CHECKOUT, check=False)
    if finished.returncode != 0:
        found = _last_of(finished.stderr) or f"Ansible ended with status {finished.returncode}"
        raise BadInput(f"read the inventory {inventory}", found=found, fix=_way_on(found))
    answer: dict[str, Any] = json.loads(finished.stdout.strip().rpartition("\n")[2])
    return answer


def _way_on(found: str) -> str:
    if "vault secrets" in found:
        return "Name the file with the vault's password: ANSIBLE_VAULT_PASSWORD_FILE=FILE before the command."
    return "ansible-playbook playbooks/validate.yml says what is wrong."


def _last_of(text: str) -> str:
    """Whole lines: the reason is in the last of them."""
    lines = [line.strip()[:_SHOWN] for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_LINES:])
