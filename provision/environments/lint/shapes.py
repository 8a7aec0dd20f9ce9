"""Takes values out of a tree that somebody else wrote, of the types that they must have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST_PACKAGES = 200_000


def mapping_of(value: object, what: str) -> Mapping[str, Any]:
    """A mapping, or a ValueError that says what is none."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no mapping")
    return value


def text_of(value: object, what: str) -> str:
    """A text, a number among them, or a ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{what} is no text")
    return str(value)


def texts_of(values: object, what: str) -> list[str]:
    """A list of texts, or a ValueError."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{what} is no list")
    return [text_of(value, what) for value in values]


def entries_of(tree: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The mappings of a list, or a ValueError."""
    found = tree.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{key} is no list")
    if len(found) > _MOST_PACKAGES:
        raise ValueError(f"{key} has more than {_MOST_PACKAGES} entries")
    return [mapping_of(entry, f"an entry of {key}") for entry in found]
