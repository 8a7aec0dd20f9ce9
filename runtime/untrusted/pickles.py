"""Pickles from elsewhere: Python's own reader in Python, left with the operations that only make values.

Its C twin reserves memory for what a pickle merely announces. Here an operation that is not listed, one too
many, or a name that the reader does not know ends the reading.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
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
# An operation leaves at most 120 bytes in memory: 22 MiB.
MOST_OPERATIONS = 200_000


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
            return self.load()
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

    def _call(self) -> None:
        """What is called may copy what it is given, however often that is given."""
        arguments = self.stack.pop()  # type: ignore[attr-defined]  # of pickle._Unpickler
        self._left.spend(sum(len(one) for one in arguments if hasattr(one, "__len__")))
        self.stack[-1] = self.stack[-1](*arguments)  # type: ignore[attr-defined]

    def _fill(self) -> None:
        state = self.stack.pop()  # type: ignore[attr-defined]  # of pickle._Unpickler
        self.fill(self.stack[-1], state)  # type: ignore[attr-defined]


class _Bounded(dict[int, Callable[[Any], None]]):
    """The acts of some operations, handed out so many times."""

    def __init__(self, acts: Mapping[int, Callable[[Any], None]], limit: int) -> None:
        super().__init__(acts)
        self._left = limit

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


_OWN = {
    pickle.BUILD: PlainUnpickler._fill,
    pickle.REDUCE: PlainUnpickler._call,
    pickle.NEWOBJ: PlainUnpickler._call,
}
_ACTS: Mapping[int, Callable[[Any], None]] = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _PLAIN}
_ACTS_OF_OBJECTS = {
    **_ACTS,
    **{code[0]: _OWN.get(code) or pickle._Unpickler.dispatch[code[0]] for code in _OF_OBJECTS},
}
