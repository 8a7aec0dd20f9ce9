"""What `provision.core` knows of environments, under the names that the roles use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provision.core import conda_layer
from provision.core.environment_digests import odd_nodes


def explicit_lines(lock: str, channel: str) -> str:
    """The text of a conda lock as conda's explicit file."""
    return conda_layer.explicit_lines(conda_layer.parse(lock), channel=channel)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"explicit_lines": explicit_lines, "odd_environments": odd_nodes}
