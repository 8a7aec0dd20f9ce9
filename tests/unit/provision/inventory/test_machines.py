from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provision.errors import BadInput
from provision.inventory.site import machines_in

HOME = Path("/home/ada")


def listed(**variables: Any) -> dict[str, Any]:
    return {"cluster": {"hosts": ["te2", "te1"]}, "_meta": {"hostvars": {"te1": variables, "te2": {}}}}


def test_machines_keep_their_order_and_get_the_user_s_own_key() -> None:
    first, second = machines_in(listed(ansible_host="10.0.0.1", ansible_user="ada"), inventory="x", home=HOME)

    assert (first.name, first.address, first.user) == ("te2", "te2", "root")
    assert (second.name, second.address, second.user) == ("te1", "10.0.0.1", "ada")
    assert first.key_file == HOME / ".ssh" / "id_ed25519"
    assert first.known_hosts == HOME / ".ssh" / "known_hosts"


def test_the_inventory_s_key_and_known_hosts_are_used() -> None:
    common = "-o IdentitiesOnly=yes -o UserKnownHostsFile=/lab/known_hosts"
    variables = {"ansible_ssh_private_key_file": "/lab/key", "ansible_ssh_common_args": common}

    _, found = machines_in(listed(**variables), inventory="x", home=HOME)

    assert (found.key_file, found.known_hosts) == (Path("/lab/key"), Path("/lab/known_hosts"))


def test_no_machines_and_templates_are_refused() -> None:
    with pytest.raises(BadInput, match="has none"):
        machines_in({"_meta": {}}, inventory="inventory/empty", home=HOME)
    with pytest.raises(BadInput, match="it is a template"):
        machines_in(listed(ansible_host="{{ x }}"), inventory="x", home=HOME)
