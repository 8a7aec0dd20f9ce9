"""Changes to a document: of bytes anywhere, or of values where a forger would make them."""

from __future__ import annotations

import copy
import random
from typing import Any

WORDS = (
    "../../../canary",
    "/etc/hostname",
    "..",
    "",
    "a\0b",
    "\x1b[2J",
    "x" * 5000,
    "__0_0.distcp",
    "manifest.json",
    "float32",
    "object",
    "\ud800",
)
NUMBERS = (0, 1, -1, 2**31, 2**62, 2**64, 10**300, -(2**63), 1.5, True, None)


def mutated(dice: random.Random, content: bytes) -> bytes:
    """Some bytes changed, doubled, cut out or put in."""
    made = bytearray(content)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(made) or 1)
        act = dice.randrange(5)
        if act == 0 and made:
            made[at] = dice.randrange(256)
        elif act == 1:
            del made[at : at + dice.randrange(40)]
        elif act == 2:
            made[at:at] = made[at : at + dice.randrange(200)]
        elif act == 3:
            made[at:at] = dice.choice(
                (b"cos\nsystem\n", b"\x93R.", b"[" * 500, b"}" * 500, b"1e400", b"\x94" * 99)
            )
        else:
            made[at:at] = dice.randbytes(dice.randrange(9))
    return bytes(made)


def mutated_json(dice: random.Random, value: Any) -> Any:
    """Some values of a document changed for others, moved, doubled or left out."""
    made = copy.deepcopy(value)
    for _ in range(dice.randint(1, 3)):
        made = _changed(dice, made, dice.randrange(6))
    return made


def _changed(dice: random.Random, value: Any, depth: int) -> Any:
    if depth and isinstance(value, dict) and value:
        key = dice.choice(list(value))
        if dice.random() < 0.1:
            return {(dice.choice(WORDS) if one == key else one): two for one, two in value.items()}
        return {**value, key: _changed(dice, value[key], depth - 1)}
    if depth and isinstance(value, list) and value:
        at = dice.randrange(len(value))
        return [*value[:at], _changed(dice, value[at], depth - 1), *value[at + dice.randrange(2) :]]
    return dice.choice((dice.choice(WORDS), dice.choice(NUMBERS), [], {}, [value] * 3, {"a": value}))
