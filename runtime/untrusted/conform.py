"""Values from another machine, held against the types that are wanted: what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin, get_type_hints

# What a float still holds exactly enough, and no exit status, count of bytes or time is beyond.
_LARGEST = 1 << 63
_SHOWN = 60

# A number that may be infinite or none at all, such as what stands in a damaged memory.
Real = NewType("Real", float)
# Any value of JSON as it is: what is held against a type of its own where that is known.
Json = NewType("Json", object)


class Malformed(ValueError):
    """A value is of another type than was agreed; the text says which."""


@dataclass(frozen=True, slots=True)
class Only:
    """What a value must be beside its type, as in Annotated[int, between(0, 255)]; in words, and tried."""

    words: str
    holds: Callable[[Any], bool]


def between(low: float, high: float) -> Only:
    """A number from `low` to `high`."""
    return Only(f"from {low:g} to {high:g}", lambda value: low <= value <= high)


def one_of(*words: str) -> Only:
    """One of these texts."""
    return Only(f"one of {', '.join(map(repr, words))}", lambda value: value in words)


# A text whose line ends count. Those of any other would begin a line in somebody else's name.
Lines = Annotated[str, "lines"]
AT_LEAST_0 = Only("at least 0", lambda value: value >= 0)


def conform(kind: Any, value: Any, where: str = "") -> Any:
    """`value`, made of JSON's values, as `kind`: a dataclass from an object, tuples from arrays.

    Numbers must be finite; text is made printable as UTF-8, and one line of it. `where` names the value in
    errors.

    Raises:
        Malformed: it is something else.
    """
    origin = get_origin(kind)
    if origin is Annotated:
        return _annotated(*get_args(kind), value=value, where=where)
    if is_dataclass(kind):
        return _dataclass(kind, value, where)
    if origin in (Union, UnionType):
        return _one_of(get_args(kind), value, where)
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return _tuple(get_args(kind)[0], value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, kind_of_value = get_args(kind)
        return _mapping(key, kind_of_value, value, where)
    return _plain(kind, value, where)


def members(kinds: Mapping[str, Any], value: Any, where: str = "") -> dict[str, Any]:
    """An object with exactly these members, each of its kind.

    Raises:
        Malformed: it has others, lacks some, or one is of another kind.
    """
    given = _object(value, where)
    if given.keys() != kinds.keys():
        odd = ", ".join(sorted(given.keys() ^ kinds.keys()))
        raise Malformed(f"{where or 'it'} lacks or should not have {_shown(odd)}")
    return {name: conform(kind, given[name], f"{where}.{name}".strip(".")) for name, kind in kinds.items()}


@cache
def _kinds(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def _optional(kind: Any) -> frozenset[str]:
    return frozenset(
        one.name for one in fields(kind) if one.default is not MISSING or one.default_factory is not MISSING
    )


def _annotated(kind: Any, *wanted: Any, value: Any, where: str) -> Any:
    is_text = isinstance(value, str) and get_args(Lines)[1] in wanted
    conforming = _utf_8(value) if is_text else conform(kind, value, where)
    for only in wanted:
        if isinstance(only, Only) and not only.holds(conforming):
            raise _wrong(only.words, value, where)
    return conforming


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    given, kinds = _object(value, where), _kinds(kind)
    wanted = {name: one for name, one in kinds.items() if name in given or name not in _optional(kind)}
    return kind(**members(wanted, given, where))


def _one_of(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    return conform(next(kind for kind in kinds if kind is not NoneType), value, where)


def _tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong("a list", value, where)
    return tuple(conform(kind, one, where) for one in value)


def _mapping(key: Any, kind: Any, value: Any, where: str) -> dict[Any, Any]:
    """JSON's keys are text; those that stand for whole numbers are read as such."""
    given = _object(value, where)
    return {_key(key, name, where): conform(kind, one, where) for name, one in given.items()}


def _key(kind: Any, name: str, where: str) -> Any:
    if kind is not int:
        return conform(kind, name, where)
    if not name.isdecimal() or len(name) > len(str(_LARGEST)):
        raise _wrong("a number", name, where)
    return int(name)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong("an object", value, where)
    return value


def _plain(kind: Any, value: Any, where: str) -> Any:
    if kind is str and isinstance(value, str):
        return " ".join(_utf_8(value).splitlines())
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and _is_number(value, whole=kind is int):
        return kind(value)
    if kind is Json or (kind is Real and isinstance(value, float)):
        return value
    raise _wrong(f"{getattr(kind, '__name__', kind)}", value, where)


def _utf_8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return abs(value) < _LARGEST  # not of a NaN, nor of an infinity


def _wrong(wanted: str, value: Any, where: str) -> Malformed:
    return Malformed(f"{where or 'it'} should be {wanted}, and is {_shown(value)}")


def _shown(value: Any) -> str:
    """The beginning of it; of lists and objects, which may be large or deep, only what they are."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value) if not isinstance(value, int) or abs(value) < _LARGEST else "beyond 64 bits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
