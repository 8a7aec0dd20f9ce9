"""Where a site keeps its key, ledger and lock: worked out by Ansible, for playbooks and `provision` alike.

`python -m provision.inventory.secrets_folder INVENTORY` prints it. Ansible takes its settings from the folder
where a process starts, so `provision` starts one in the checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
# As the default of role ssh_trust has it.
_RULE = "{{ ssh_trust_secrets_path | default(inventory_dir ~ '/secrets') }}"


def secrets_folder(manager: Any) -> Path | None:
    """From the variables of the cluster's first node; None for a site without nodes.

    Args:
        manager: Ansible's VariableManager.

    Raises:
        AnsibleError: a variable in it is not defined, or no absolute path comes out.
    """
    group = manager._inventory.groups.get("cluster")
    hosts = group.get_hosts() if group else []
    if not hosts:
        return None
    HostVars(manager._inventory, manager, manager._loader)  # lets a template use the variables of others
    templar = Templar(loader=manager._loader, variables=manager.get_vars(host=hosts[0]))
    folder = Path(str(templar.template(trust_as_template(_RULE))))
    if not folder.is_absolute():
        raise AnsibleError(f"ssh_trust_secrets_path is {folder}: it must be an absolute path")
    return folder


def main(words: Sequence[str]) -> int:
    """Prints the folder of an inventory; an empty line for a site without nodes."""
    loader = DataLoader()
    loader.set_basedir(str(PLAYBOOKS))
    try:
        identities = constants.DEFAULT_VAULT_IDENTITY_LIST
        loader.set_vault_secrets(CLI.setup_vault_secrets(loader, identities, auto_prompt=False))
        inventory = InventoryManager(loader=loader, sources=list(words))
        found = secrets_folder(VariableManager(loader=loader, inventory=inventory))
    except AnsibleError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    sys.stdout.write(f"{found or ''}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
