"""The machines of a site, from what `ansible-inventory --list` prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from provision.errors import BadInput
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
