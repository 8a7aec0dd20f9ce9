"""Small files of a lab: what it is (lab.json), and what its cables are limited to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from provision.edges.files import write_file as write_file
from provision.errors import BadInput
from provision.lab.layout import Lab, LabNode
from provision.lab.shape import Shape


def save(lab: Lab) -> None:
    """Writes lab.json; a reader finds the old one or the new one."""
    write_file(lab.record, json.dumps(as_data(lab), indent=2) + "\n")


def as_data(lab: Lab) -> dict[str, Any]:
    """What a record of a lab holds."""
    return {
        "name": lab.name,
        "subnet": str(lab.subnet),
        "nodes": lab.count,
        "disk_bytes": lab.disk_bytes,
        "base": str(lab.base),
        "data_image": str(lab.data_image) if lab.data_image else None,
        "snapshot": lab.snapshot,
        "release": lab.release,
    }


def from_data(found: Mapping[str, Any], folder: Path) -> Lab:
    """The lab of a record, in `folder`.

    Raises:
        ValueError, KeyError, TypeError: it is no such record.
    """
    return Lab(
        name=found["name"],
        subnet=IPv4Network(found["subnet"]),
        count=found["nodes"],
        disk_bytes=found["disk_bytes"],
        base=Path(found["base"]),
        data_image=Path(image) if (image := found.get("data_image")) else None,
        snapshot=found.get("snapshot"),
        release=found.get("release", ""),
        folder=folder,
    )


def load(folder: Path) -> Lab | None:
    """The lab whose state is in `folder`; None when there is none.

    Raises:
        BadInput: its record is damaged.
    """
    try:
        return from_data(json.loads((folder / "lab.json").read_text()), folder)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as e:
        raise BadInput(
            f"read {folder / 'lab.json'}",
            found=f"it is damaged: {e!r}",
            fix=f"Start over: provision lab down --name {folder.name}",
        ) from e


def save_shape(node: LabNode, shape: Shape) -> None:
    """Keeps a cable's limits, so that they are there again when the node is switched on."""
    write_file(node.shape, json.dumps(asdict(shape)) + "\n")


def load_shape(node: LabNode) -> Shape:
    try:
        return Shape(**json.loads(node.shape.read_text()))
    except FileNotFoundError:
        return Shape()
