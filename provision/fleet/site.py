"""Reads a site's inventory as Ansible does."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from provision.core.site_machines import machines_in
from provision.edges import process
from provision.errors import BadInput
from provision.model import Machine


def read_site(inventory: Path, *, environment: Mapping[str, str]) -> list[Machine]:
    """The machines of the site in the folder `inventory`.

    Raises:
        BadInput: there is no such folder, or Ansible cannot read it.
    """
    if not inventory.exists():
        raise BadInput(f"read the inventory {inventory}", found="there is none", fix="Correct -i.")
    program = Path(sys.executable).parent / "ansible-inventory"
    words = (program, "--inventory", inventory, "--list")
    finished = process.run(words, timeout_seconds=60, env=environment, check=False)
    if finished.returncode != 0:
        raise BadInput(
            f"read the inventory {inventory}",
            found=finished.stderr.strip()[-500:],
            fix="ansible-playbook playbooks/validate.yml says what is wrong.",
        )
    return machines_in(json.loads(finished.stdout), inventory=str(inventory), home=Path.home())
