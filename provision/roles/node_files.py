"""Which of the files that a role wants differ from what a node has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_DEFAULTS = {"mode": "0644", "owner": "root", "group": "root"}


def differing(
    wanted: Sequence[Mapping[str, str]], observed: Mapping[str, Mapping[str, Any] | None]
) -> list[dict[str, str]]:
    """The wanted files (path, content, mode, owner, group) that are missing or not as observed by path."""
    return [dict(file) for file in wanted if not _is_as_wanted(file, observed.get(file["path"]))]


def _is_as_wanted(file: Mapping[str, str], found: Mapping[str, Any] | None) -> bool:
    if found is None or found["text"] != file["content"]:
        return False
    return all(found[name] == file.get(name, default) for name, default in _DEFAULTS.items())
