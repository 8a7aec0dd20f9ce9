"""Which edits a text of an inventory needs: those of YAML or those of ini. Pure."""

from __future__ import annotations

from typing import Any, Protocol

import yaml

from provision.inventory import edits, ini_edits
from provision.inventory.edit_rules import NodeLines


class Edits(Protocol):
    """What can be done with one node's line."""

    def add(
        self,
        text: str,
        name: str,
        *,
        address: str,
        slots: int | None,
        cluster_address: str | None = None,
        group: str | None = None,
    ) -> str: ...

    def replace(self, text: str, name: str, *, address: str, keeps_cluster_address: bool = False) -> str: ...

    def remove(self, text: str, name: str) -> str: ...

    def drain(self, text: str, name: str) -> str: ...

    def undrain(self, text: str, name: str) -> str: ...

    def nodes(self, text: str) -> NodeLines[Any]: ...


def edits_of(text: str) -> Edits:
    """As Ansible: YAML where it is a mapping of groups, else ini where it has sections."""
    try:
        if isinstance(yaml.compose(text), yaml.MappingNode):
            return edits
    except (yaml.YAMLError, RecursionError):
        pass
    has_section = any(ini_edits.SECTION.fullmatch(line.strip()) for line in text.splitlines())
    return ini_edits if has_section else edits
