"""What the controller keeps of a cluster's trust: its key, keys that it had, ledgers of the nodes' keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from provision.edges.files import text_of, write_file
from provision.errors import BadInput

_NAME = "controller_key"


def controller_key(secrets: Path, purpose: str) -> Path:
    """The private half; its public half lies beside it.

    Raises:
        BadInput: there is none yet.
    """
    path = secrets / _NAME
    if not path.is_file() or not path.with_name(f"{_NAME}.pub").is_file():
        raise BadInput(
            purpose,
            found=f"there is no {path}, with which this controller signs",
            fix="ansible-playbook playbooks/site.yml makes it, and tells the nodes; or put your copy back.",
        )
    return path


# Of roles ssh_trust and wireguard_mesh.
_HOST_KEYS, _MESH_KEYS = "host_keys.yml", "mesh_keys.yml"


def give_up_key(secrets: Path) -> None:
    """Retires the cluster's key, so that members.yml makes a new one and lets the old one in nowhere.

    The old public key is kept first: a run that is interrupted here leaves no node that still trusts it.
    """
    private, public = secrets / "cluster_key", secrets / "cluster_key.pub"
    if not public.is_file():
        return
    retired = secrets / "retired_keys.pub"
    known = retired.read_text().splitlines() if retired.is_file() else []
    key = public.read_text().strip()
    if key not in known:
        write_file(retired, "".join(f"{line}\n" for line in [*known, key]), mode=0o600)
    private.unlink(missing_ok=True)
    public.unlink()


def nodes_in_ledger(secrets: Path) -> list[str]:
    """The nodes whose host keys are known.

    Raises:
        BadInput: the ledger is damaged.
    """
    return sorted(_ledger(secrets / _HOST_KEYS))


def forget(secrets: Path, node: str) -> None:
    """Takes a node out of the ledgers: of host keys, and of keys of the mesh."""
    for path in (secrets / _HOST_KEYS, secrets / _MESH_KEYS):
        ledger = _ledger(path)
        if ledger.pop(node, None) is not None:
            write_file(path, yaml.safe_dump(ledger), mode=0o600)


def _ledger(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(text_of(path)) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise _damaged(path, e) from e
    if not isinstance(found, dict):
        raise _damaged(path, f"it holds {type(found).__name__} where nodes belong")
    return found


def _damaged(path: Path, found: object) -> BadInput:
    fix = "Put a copy of it back; without one delete it and run site.yml, which reads the nodes' keys anew."
    return BadInput(f"read {path}", found=f"it is damaged ({found})", fix=fix)
