"""What Ansible makes of an inventory: worked out by Ansible itself, for playbooks and `provision` alike.

`python -m provision.inventory.as_ansible INVENTORY VARIABLE...` prints it as JSON: where a site keeps its
key, ledger and lock; of each node the settings of its connection, and those of the variables that are set.
With `--as-roles` before the inventory variables that are not set are what the roles' defaults make of them.
Ansible takes its own settings from the folder where a process starts, so `provision` starts one in the
checkout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ansible import constants
from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
# As the default of role ssh_trust has it.
_RULE = "{{ ssh_trust_secrets_path | default(inventory_dir ~ '/secrets') }}"
_SSH = ("ssh", "smart")
# Of Ansible's ssh plugin, by their names there.
_OPTIONS = (
    *("host", "port", "remote_user", "private_key_file", "private_key", "password", "timeout"),
    *("ssh_executable", "ssh_args", "ssh_common_args", "ssh_extra_args"),
)
_BECOME_OPTIONS = ("become_user", "become_pass", "become_flags", "become_exe")


def secrets_folder(manager: Any) -> Path | None:
    """From the variables of the cluster's first node; None for a site without nodes.

    Args:
        manager: Ansible's VariableManager.

    Raises:
        AnsibleError: a variable in it is not defined, or no absolute path comes out.
    """
    hosts = _hosts(manager)
    if not hosts:
        return None
    HostVars(manager._inventory, manager, manager._loader)  # lets a template use the variables of others
    templar = Templar(loader=manager._loader, variables=manager.get_vars(host=hosts[0]))
    folder = Path(str(templar.template(trust_as_template(_RULE))))
    if not folder.is_absolute():
        raise AnsibleError(f"ssh_trust_secrets_path is {folder}: it must be an absolute path")
    return folder


def _hosts(manager: Any) -> list[Any]:
    group = manager._inventory.groups.get("cluster")
    return list(group.get_hosts()) if group else []


def nodes(manager: Any, wanted: Sequence[str], *, as_roles: bool = False) -> dict[str, dict[str, Any]]:
    """Of each node `login`, None where Ansible cannot work it out; `variables`; and `fault`, why not.

    Args:
        wanted: the variables; one that is not set is left out.
        as_roles: it is what the roles' defaults make of it instead.
    """
    roles = _variables_of_roles(manager._loader) if as_roles else ({}, {})
    return {host.name: _node(manager, host, wanted, roles) for host in _hosts(manager)}


def _variables_of_roles(loader: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Defaults of all roles, and what they work out, which is not to be set."""
    init_plugin_loader()
    found: list[dict[str, Any]] = []
    for folder in ("defaults", "vars"):
        texts = sorted((PLAYBOOKS / "roles").glob(f"*/{folder}/main.yml"))
        loaded = [loader.load_from_file(str(path), trusted_as_template=True) or {} for path in texts]
        found.append({name: value for one in loaded for name, value in one.items()})
    return found[0], found[1]


def _node(
    manager: Any, host: Any, wanted: Sequence[str], roles: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {"login": None, "variables": {}, "fault": ""}
    try:
        values = _Values(manager, host)
        found["variables"] = _plain(_Values(manager, host, *roles).of(wanted))
        found["login"] = _plain(_login(values))
    except (AnsibleError, ValueError, TypeError, RecursionError) as e:
        found["fault"] = " ".join(str(e).split()) or type(e).__name__
    return found


def _plain(value: Any) -> Any:
    """Without Ansible's own types, of which some are worked out only now."""
    return json.loads(json.dumps(value, default=str))


class _Values:
    """The variables of a host, each evaluated when it is asked for."""

    def __init__(
        self,
        manager: Any,
        host: Any,
        below: Mapping[str, Any] = MappingProxyType({}),
        above: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._variables: Mapping[str, Any] = {**below, **manager.get_vars(host=host), **above}
        self._templar = Templar(loader=manager._loader, variables=self._variables)

    def of(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self.one(name) for name in names if name in self._variables}

    def one(self, name: str) -> Any:
        """Raises:
        AnsibleError: it cannot be worked out.
        """
        try:
            return self._templar.template(self._variables.get(name))
        except AnsibleError as e:
            raise AnsibleError(f"{name}: {e}") from e


def _login(values: _Values) -> dict[str, Any]:
    """The options of Ansible's ssh plugin, with those of its become plugin where commands become root's."""
    connection = str(values.one("ansible_connection") or constants.DEFAULT_TRANSPORT)
    connection = connection.removeprefix("ansible.builtin.")
    if connection not in _SSH:
        return {"connection": connection}
    plugin = connection_loader.get("ssh", PlayContext(), None)
    plugin.set_options(
        var_options=values.of(constants.config.get_plugin_vars("connection", plugin._load_name))
    )
    login = {name: plugin.get_option(name) for name in _OPTIONS}
    login["password"] = login["password"] or _password(constants.CONNECTION_PASSWORD_FILE)
    return {"connection": "ssh", **login, "become": _become(values)}


def _become(values: _Values) -> dict[str, Any] | None:
    stated = values.one("ansible_become")
    try:
        if not boolean(constants.DEFAULT_BECOME if stated is None else stated):
            return None
    except TypeError as e:
        raise AnsibleError(f"ansible_become: {e}") from e
    method = str(values.one("ansible_become_method") or constants.DEFAULT_BECOME_METHOD)
    plugin = become_loader.get(method)
    if plugin is None:
        raise AnsibleError(f"ansible_become_method: there is no {method}")
    plugin.set_options(var_options=values.of(constants.config.get_plugin_vars("become", plugin._load_name)))
    found = {name: plugin.get_option(name) for name in _BECOME_OPTIONS if plugin.has_option(name)}
    found["become_pass"] = found.get("become_pass") or _password(constants.BECOME_PASSWORD_FILE)
    return {"method": method.removeprefix("ansible.builtin."), **found}


def _password(path: str | None) -> str:
    """Of a file that ansible.cfg or the environment names, or of the program that it is."""
    return str(CLI.get_password_from_file(path)) if path else ""


def main(words: Sequence[str]) -> int:
    """Prints what Ansible makes of an inventory, or why it makes nothing of it."""
    as_roles = words[0] == "--as-roles"
    source, *wanted = words[1:] if as_roles else words
    loader = DataLoader()
    loader.set_basedir(str(PLAYBOOKS))
    init_plugin_loader()  # else no name with its collection is found, as ansible.builtin.env
    try:
        identities = constants.DEFAULT_VAULT_IDENTITY_LIST
        loader.set_vault_secrets(CLI.setup_vault_secrets(loader, identities, auto_prompt=False))
        inventory = InventoryManager(loader=loader, sources=[source])
        manager = VariableManager(loader=loader, inventory=inventory)
        told = {
            "secrets": str(secrets_folder(manager) or ""),
            "nodes": nodes(manager, wanted, as_roles=as_roles),
        }
    except AnsibleError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    except Exception as e:  # of a text that Ansible's own parsers stumble over
        sys.stderr.write(f"Ansible cannot read it: {type(e).__name__}: {e}\n")
        return 1
    sys.stdout.write(f"{json.dumps(told)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
