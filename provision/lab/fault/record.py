"""Which faults a node has: a file in its folder, written before a fault is injected; `reset` deletes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from provision.errors import BadInput
from provision.lab.layout import LabNode
from provision.lab.record import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """A fault that was injected, or that a command was about to inject when it ended."""

    fault: str
    peer: str | None
    value: str


def load(node: LabNode) -> tuple[Active, ...]:
    """The node's faults, oldest first.

    Raises:
        BadInput: the record is damaged.
    """
    try:
        return tuple(Active(**entry) for entry in json.loads(node.faults.read_text()))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError) as e:
        raise BadInput(
            f"read {node.faults}",
            found=f"it is damaged: {e!r}",
            fix=f"Give the node its first state: provision lab reset {node.name}",
        ) from e


def save(node: LabNode, faults: Sequence[Active]) -> None:
    """Replaces the node's record; without faults there is none."""
    if faults:
        write_file(node.faults, json.dumps([asdict(active) for active in faults], indent=2) + "\n")
    else:
        node.faults.unlink(missing_ok=True)
