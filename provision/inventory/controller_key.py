"""The key that only the controller has: it signs the verdicts on nodes and images, and opens nothing."""

from __future__ import annotations

from pathlib import Path

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
