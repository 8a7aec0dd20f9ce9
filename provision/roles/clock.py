"""Whether a node's clock follows its source, from what chrony reports."""

from __future__ import annotations

from collections.abc import Mapping
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
