"""Values that validation refuses, and that are meant in one way only or do not matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from runtime.train.config.explain import follow, homes
from runtime.train.config.fields import reason
from runtime.train.config.off import OPEN_BLOCKS, Note
from runtime.train.config.schema import Config

# A name this like one that is known is a slip; DeepSpeed would train without it, silently.
_LIKE = 0.75
_NUMBERS = ("int_type", "float_type", "bool_type", "literal_error")


def mend(values: dict[str, Any], errors: Sequence[ErrorDetails], note: Note, ignore: Note) -> bool:
    """Changes `values` in place where that answers an error of pydantic; says whether any was."""
    answered = [_mend_one(values, error, note, ignore) for error in errors]  # each of them
    return any(answered)


def _mend_one(values: dict[str, Any], error: ErrorDetails, note: Note, ignore: Note) -> bool:
    keys, block = follow(Config, error["loc"], values)
    if not keys:
        return False
    owner: Any = values
    for part in keys[:-1]:
        owner = owner[part] if isinstance(owner, dict) or isinstance(part, int) else None
        if owner is None:
            return False
    name, where = keys[-1], ".".join(map(str, keys))
    if error["type"] == "extra_forbidden":
        if not _is_nobodys(str(name), ".".join(map(str, keys[:-1])), block):
            return False
        del owner[name]
        ignore(where, "there is no such key; DeepSpeed passes over it as well")
        return True
    meant = _meant(error)
    if meant is not None:
        owner[name] = meant
        note(where, f"written as {json.dumps(error['input'])}")
        return True
    field = block.model_fields.get(str(name))
    if field is None or not (why := reason(field, "idle")) or not isinstance(owner, dict):
        return False
    ignore(where, f"{json.dumps(owner.pop(name))[:60]} is passed over: {why}")
    return True


def _is_nobodys(name: str, path: str, block: type[BaseModel]) -> bool:
    """Whether an unknown key is none of ours written wrongly or in the wrong place."""
    if path not in OPEN_BLOCKS or (not path and homes(name)):
        return False
    return not get_close_matches(name.lower(), block.model_fields, n=1, cutoff=_LIKE)


def _meant(error: ErrorDetails) -> int | float | bool | None:
    """The number or the yes or no that a string stands for; 0 and 1 for no and yes."""
    value = error["input"]
    if error["type"] == "bool_type" and type(value) is int and value in (0, 1):
        return bool(value)
    if error["type"] not in _NUMBERS or not isinstance(value, str):
        return None
    try:
        meant = json.loads(value.strip().lower())
    except (ValueError, RecursionError):
        return None
    fits = isinstance(meant, bool) if error["type"] == "bool_type" else type(meant) in (int, float)
    return meant if fits else None
