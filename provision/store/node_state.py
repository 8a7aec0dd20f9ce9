"""What a node says of its part in a delivery, held against what it may say. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from provision.printable import one_line

STATES = ("arriving", "whole", "failed")
_MOST_NOTES, _MOST_LETTERS, _MOST_LANES = 20, 300, 2
_MOST_NUMBER = 1 << 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One line of a node. Bytes: here, of the whole tree, found here, got from others, sent to others.

    `stuck`: lanes for which it finds nobody who has what it lacks.
    """

    state: str
    error: str = ""
    bytes: int = 0
    of: int = 0
    adopted: int = 0
    got: int = 0
    sent: int = 0
    stuck: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())


def said_in(line: bytes) -> Said:
    """Raises:
    ValueError: it is nothing that a node says.
    """
    try:
        found = json.loads(line)
    except RecursionError as e:
        raise ValueError("it is nested") from e
    if not isinstance(found, dict) or found.get("state") not in STATES:
        raise ValueError("it says no state")
    numbers = {name: _number(found.get(name, 0)) for name in ("bytes", "of", "adopted", "got", "sent")}
    stuck, notes = found.get("stuck", []), found.get("notes", [])
    if not isinstance(stuck, list) or not all(
        type(lane) is int and 0 <= lane < _MOST_LANES for lane in stuck
    ):
        raise ValueError("it is stuck in no lane")
    if not isinstance(notes, list):
        raise ValueError("its notes are no list")
    return Said(
        state=found["state"],
        error=_words(found.get("error", "")),
        stuck=tuple(stuck),
        notes=tuple(_words(note) for note in notes[:_MOST_NOTES]),
        **numbers,
    )


def _number(found: object) -> int:
    if type(found) is not int or not 0 <= found <= _MOST_NUMBER:
        raise ValueError("a number is none")
    return found


def _words(found: object) -> str:
    if not isinstance(found, str):
        raise ValueError("its words are none")
    return one_line(found)[:_MOST_LETTERS]
