"""The pure decisions of `provision.core`, under the names that the roles use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from provision.core.nodes import nodes_of


def cluster_nodes(names: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [asdict(node) for node in nodes_of(names, hostvars)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster_nodes": cluster_nodes}
