"""Pickles from elsewhere: Python's own reader in Python, left with the operations that only make values.

Its C twin reserves memory for what a pickle merely announces. Here an operation that is not listed, one too
many, or a name that the reader does not know ends the reading. So does what is small in the file and takes
for ever to hash, to compare or to walk.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

_PLAIN = (
    pickle.PROTO,
    pickle.FRAME,
    pickle.STOP,
    pickle.MARK,
    pickle.POP,
    pickle.NONE,
    pickle.NEWTRUE,
    pickle.NEWFALSE,
    pickle.BININT,
    pickle.BININT1,
    pickle.BININT2,
    pickle.LONG1,
    pickle.BINFLOAT,
    pickle.BINUNICODE,
    pickle.SHORT_BINUNICODE,
    pickle.BINBYTES,
    pickle.SHORT_BINBYTES,
    pickle.EMPTY_LIST,
    pickle.APPEND,
    pickle.APPENDS,
    pickle.EMPTY_DICT,
    pickle.SETITEM,
    pickle.SETITEMS,
    pickle.EMPTY_TUPLE,
    pickle.TUPLE,
    pickle.TUPLE1,
    pickle.TUPLE2,
    pickle.TUPLE3,
    pickle.BINPUT,
    pickle.LONG_BINPUT,
    pickle.BINGET,
    pickle.LONG_BINGET,
    pickle.MEMOIZE,
    pickle.GLOBAL,
    pickle.STACK_GLOBAL,
)
_OF_OBJECTS = (
    pickle.REDUCE,
    pickle.NEWOBJ,
    pickle.BUILD,
    pickle.BINPERSID,
    pickle.EMPTY_SET,
    pickle.ADDITEMS,
)
# An operation leaves at most 120 bytes in memory, 22 MiB; so many letters of a text that is copied less.
MOST_OPERATIONS = 200_000
_LETTERS = 16
_DEEPEST_KEY = 8  # tuples in a key
# Nobody can choose the hash of a text. That of a number can be chosen, and a table of n such keys may take
# n * n steps. So may one of tuples or of long numbers, whose hashes can be equal: each step is a comparison.
_MOST_STEPS = 2**33
_STEPS_OF_A_COMPARISON, _STEPS_OF_A_PART = 16, 64
_LONG = 2**64
# Of the value that is read: how deep it is, and its parts, each counted as often as it is met by who walks
# all of it. A list of twice the same list, sixty times over, is 300 bytes and has 2^60.
_DEEPEST, _MOST_PARTS = 200, 2**25


class PlainUnpickler(pickle._Unpickler):
    """Numbers, text, lists and mappings; a subclass says which names it knows, and how objects are filled.

    Args:
        operations: how many are carried out.
    """

    objects = False
    what = "it"  # in an error

    def __init__(self, content: bytes, *, operations: int = MOST_OPERATIONS) -> None:
        super().__init__(io.BytesIO(content))
        acts = _ACTS_OF_OBJECTS if self.objects else _ACTS
        self.dispatch = self._left = _Bounded(acts, operations)  # type: ignore[misc]  # looked up here

    def read_all(self) -> Any:
        """The value.

        Raises:
            ValueError: it is damaged, too large, or asks for anything but values.
        """
        try:
            value = self.load()
            check_nesting(self.walked(value))
            return value
        except Exception as e:  # what a damaged pickle does to its reader is not to be foreseen
            raise ValueError(str(e) or f"it is damaged ({type(e).__name__})") from e
        finally:
            # It holds methods of this object, which would keep what was read until garbage is collected.
            self.memo.clear()  # type: ignore[attr-defined]  # of pickle._Unpickler

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; nothing is imported."""
        found = self.known(f"{module}.{name}")
        if found is None:
            raise ValueError(f"it asks for {f'{module}.{name}'[:120]!r}, which {self.what} does not hold")
        return found

    def known(self, name: str) -> Any:
        """What a subclass has for a name; None where it knows none."""
        return None

    def fill(self, made: Any, state: Any) -> None:
        """Gives an object its state; a subclass says which objects may have one."""
        raise ValueError(f"it gives a state to {type(made).__name__!r}")

    def walked(self, value: Any) -> Any:
        """What is held against the limits of nesting: the value, and what a subclass keeps beside it."""
        return value

    def _call(self) -> None:
        """What is called may copy what it is given, however often that is given."""
        arguments = self.stack.pop()  # type: ignore[attr-defined]  # of pickle._Unpickler
        called = self.stack[-1]  # type: ignore[attr-defined]
        for one in arguments:
            if hasattr(one, "__len__"):
                self._left.spend(len(one) // (_LETTERS if isinstance(one, str | bytes) else 1))
        if isinstance(called, type) and issubclass(called, set | dict):
            for parts in (one for one in arguments if isinstance(one, list | tuple | set | dict)):
                for number, part in enumerate(parts):  # a key, or a key and its value
                    self._check_key(part[0] if isinstance(part, list) and part else part, number)
        self.stack[-1] = called(*arguments)  # type: ignore[attr-defined]

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        self._set(((key, value),))

    def _set_items(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]  # of pickle._Unpickler
        self._set(zip(items[::2], items[1::2], strict=True))

    def _set(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        made = self._top(dict)
        for key, value in pairs:
            self._check_key(key, len(made))
            made[key] = value

    def _add_items(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]  # of pickle._Unpickler
        made = self._top(set)
        for item in items:
            self._check_key(item, len(made))
            made.add(item)

    def _top(self, kind: type) -> Any:
        made = self.stack[-1]  # type: ignore[attr-defined]  # of pickle._Unpickler
        if not isinstance(made, kind):
            raise ValueError(f"it fills {type(made).__name__!r} as if that were a {kind.__name__}")
        return made

    def _check_key(self, key: Any, beside: int) -> None:
        """A key that can be hashed, and put beside so many others, in bounded time.

        Objects are hashed by where they are in memory.
        """
        if isinstance(key, tuple):
            self._check_tuple(key, _DEEPEST_KEY)
        if isinstance(key, tuple | complex) or (isinstance(key, int) and abs(key) >= _LONG):
            self._left.step(_STEPS_OF_A_COMPARISON * beside)
        elif isinstance(key, int | float) and not isinstance(key, bool):
            self._left.step(beside)

    def _check_tuple(self, key: tuple[Any, ...], deepest: int) -> None:
        if not deepest:
            raise ValueError(f"it has a key of more than {_DEEPEST_KEY} tuples in each other")
        self._left.step(_STEPS_OF_A_PART * len(key))
        for part in key:
            if isinstance(part, tuple):
                self._check_tuple(part, deepest - 1)

    def _fill(self) -> None:
        state = self.stack.pop()  # type: ignore[attr-defined]  # of pickle._Unpickler
        self.fill(self.stack[-1], state)  # type: ignore[attr-defined]


def check_nesting(value: Any) -> None:
    """Whoever walks the value comes to an end soon, and not too deep.

    Each list, tuple, set, mapping or object with parts is gone through once. One that contains itself is
    endlessly deep.

    Raises:
        ValueError: it is too deep, or has too many parts.
    """
    counted: dict[int, tuple[int, int]] = {}  # parts and depth of what has been gone through
    opened = [_Opened(value)]
    while True:
        inner = opened[-1]
        for part in inner.parts:
            if not isinstance(part, _CONTAINERS):
                inner.count += 1
            elif known := counted.get(id(part)):
                inner.add(*known)
            else:
                opened.append(_Opened(part))
                break
        else:
            opened.pop()
            counted[inner.at] = inner.count, inner.depth
            if not opened:
                return
            opened[-1].add(inner.count, inner.depth)
        if len(opened) > _DEEPEST:
            raise ValueError(_TOO_DEEP)


_CONTAINERS = (list, tuple, dict, set)
_TOO_DEEP = f"it is nested deeper than {_DEEPEST} times, or contains itself"


class _Opened:
    """A container that is being gone through."""

    __slots__ = ("at", "count", "depth", "parts")

    def __init__(self, value: Any) -> None:
        self.at, self.count, self.depth = id(value), 1, 1
        if isinstance(value, dict):
            self.parts: Iterator[Any] = chain(value, value.values())
        else:
            self.parts = iter(value if isinstance(value, _CONTAINERS) else ())

    def add(self, count: int, depth: int) -> None:
        """Counts a part."""
        self.count, self.depth = self.count + count, max(self.depth, depth + 1)
        if self.count > _MOST_PARTS:
            raise ValueError(
                f"it has more than {_MOST_PARTS} parts where each is counted as often as it is met"
            )
        if self.depth > _DEEPEST:
            raise ValueError(_TOO_DEEP)


class _Bounded(dict[int, Callable[[Any], None]]):
    """The acts of some operations, handed out so many times."""

    def __init__(self, acts: Mapping[int, Callable[[Any], None]], limit: int) -> None:
        super().__init__(acts)
        self._left, self._steps = limit, _MOST_STEPS

    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise ValueError(f"it asks for operation {bytes([code])!r}, which makes no plain value")

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.spend(1)
        return super().__getitem__(code)

    def spend(self, count: int) -> None:
        """Counts what is carried out or copied."""
        self._left -= count
        if self._left < 0:
            raise ValueError("it holds more than is read")

    def step(self, count: int) -> None:
        """Counts what hashing takes, and finding a place for a key."""
        self._steps -= count
        if self._steps < 0:
            raise ValueError(
                "it has more keys than are read that are numbers or tuples: use a list, a tensor or text"
            )


_OWN = {
    pickle.SETITEM: PlainUnpickler._set_item,
    pickle.SETITEMS: PlainUnpickler._set_items,
    pickle.ADDITEMS: PlainUnpickler._add_items,
    pickle.BUILD: PlainUnpickler._fill,
    pickle.REDUCE: PlainUnpickler._call,
    pickle.NEWOBJ: PlainUnpickler._call,
}


def _acts(codes: Iterable[bytes]) -> dict[int, Callable[[Any], None]]:
    return {code[0]: _OWN.get(code) or pickle._Unpickler.dispatch[code[0]] for code in codes}


_ACTS, _ACTS_OF_OBJECTS = _acts(_PLAIN), _acts(_PLAIN + _OF_OBJECTS)
