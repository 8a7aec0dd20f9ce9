"""JSON from elsewhere, read within bounds of length, nesting and memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from math import isfinite
from typing import Any, TypeVar

T = TypeVar("T")
LIMIT_BYTES = 1024 * 1024
# A container takes 200 bytes of memory and 3 of text; a genuine document has one in many more.
_TEXT_PER_CONTAINER = 32
_MOST_BITS = 62
# Of a tensor. The product of a million sides, which a small file can hold, takes hours.
_MOST_SIDES = 64


def parse(text: bytes, *, limit_bytes: int = LIMIT_BYTES, encoding: str = "ascii") -> Any:
    """The value of a JSON text; its memory stays below 20 times the limit.

    Raises:
        ValueError: it is none, too long, nested too deeply, names a key twice or has a number that is none.
    """
    if len(text) > limit_bytes:
        raise ValueError(f"it has {len(text)} bytes, and at most {limit_bytes} are read")
    if text.count(b"{") + text.count(b"[") > limit_bytes // _TEXT_PER_CONTAINER:
        raise ValueError("it has more lists and mappings than are read")
    try:
        return json.loads(
            text.decode(encoding),
            object_pairs_hook=_unique,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError("it cannot be read") from e
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


def mapping(value: Any, what: str, keys: Collection[str] | None = None) -> dict[str, Any]:
    """The value, if it is a mapping with exactly these keys (any where None).

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no mapping")
    if keys is not None and set(value) != set(keys):
        odd = sorted(set(value) ^ set(keys))[0]
        raise ValueError(f"{what} {'has' if odd in value else 'lacks'} {odd[:80]!r}")
    return value


def listed(value: Any, what: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    """Each element as it is read.

    Raises:
        ValueError: it is no list, or an element is refused.
    """
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list")
    return tuple(read(one) for one in value)


def whole(value: Any, what: str, *, low: int = 0, high: int = 2**_MOST_BITS) -> int:
    """A whole number from `low` to `high`.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is no whole number from {low} to {high}")
    return value


def sides(values: Iterable[Any], what: str) -> tuple[int, ...]:
    """A tensor's shape, or a place in it.

    Raises:
        ValueError: it has too many sides, or one is no whole number.
    """
    found = tuple(whole(value, what) for value in values)
    if len(found) > _MOST_SIDES:
        raise ValueError(f"{what} has {len(found)} dimensions, and at most {_MOST_SIDES} are read")
    return found


def number(value: Any, what: str, *, low: float, high: float) -> float:
    """A number from `low` to `high`.

    Raises:
        ValueError: it is none.
    """
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{what} is no number from {low:g} to {high:g}")
    return float(value)


def text(value: Any, what: str, *, most: int = 4096) -> str:
    """Printable text of at most `most` characters.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise ValueError(f"{what} is no printable text of at most {most} characters")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("it names a key twice")
    return made


def _no_number(word: str) -> Any:
    raise ValueError(f"it has {word} for a number")


def _finite(word: str) -> float:
    value = float(word)
    if not isfinite(value):
        raise ValueError(f"it has {word[:20]} for a number, which is too large")
    return value
