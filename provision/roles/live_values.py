"""Which live values of a node are not as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def live_problems(
    commands: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Sequence[str]]
) -> list[str]:
    """For each command the lines that it should print, in order, compared with those that it printed.

    White space within a line does not count: the kernel separates fields with tabs.
    """
    return [problem for name, lines in wanted.items() for problem in _compare(name, commands[name], lines)]


def _compare(name: str, printed: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    found = [" ".join(line.split()) for line in printed["stdout"].splitlines()]
    if printed["rc"] != 0 or len(found) != len(wanted):
        said = " ".join(f"{printed['stdout']} {printed['stderr']}".split())
        return [
            f"{name}: wanted {', '.join(map(str, wanted))}, and its command ends with {printed['rc']}: {said}"
        ]
    pairs = zip(found, (" ".join(str(line).split()) for line in wanted), strict=True)
    return [f"{name}: wanted {want}, found {have}" for have, want in pairs if have != want]
