"""Whether a node's way to the next one is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def next_node_problems(answer: Mapping[str, Any], next_node: str) -> list[str]:
    """What is wrong, from `hostname` over ssh, which the next node must answer with its name."""
    if answer["rc"] == 0 and answer["stdout"] == next_node:
        return []
    said = " ".join(f"{answer['stdout']} {answer['stderr']}".split()) or "nothing"
    return [f"ssh to {next_node} ends with {answer['rc']}: {said}"]
