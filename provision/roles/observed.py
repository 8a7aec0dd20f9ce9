"""Whether what a node has and does is as wanted: files, live values, its clock. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Fields of `chronyc -c tracking` (chronyc(1)), counted from 0.
_SOURCE, _OFFSET, _LEAP, _FIELDS = 1, 4, 13, 14


def clock_problem(tracking: Mapping[str, Any], *, largest_offset_seconds: float) -> str:
    """Why the clock does not count as kept; "" when it does."""
    fields = tracking["stdout"].split(",")
    if tracking["rc"] != 0 or len(fields) < _FIELDS:
        said = " ".join(f"{tracking['stdout']} {tracking['stderr']}".split())
        return f"chronyc tracking ends with {tracking['rc']}: {said or 'nothing'}"
    if fields[_LEAP] == "Not synchronised":
        return "chrony has no source yet; look at `chronyc -n sources`"
    offset = float(fields[_OFFSET])
    if abs(offset) > largest_offset_seconds:
        return f"the clock is {offset:+.3f} s off {fields[_SOURCE]}, more than {largest_offset_seconds} s"
    return ""


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
