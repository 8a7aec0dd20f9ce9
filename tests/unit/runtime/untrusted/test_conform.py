"""What another machine sends, as the types that were agreed, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from runtime.untrusted.conform import AT_LEAST_0, Malformed, Real, between, conform, members


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    inner: Inner | None
    many: tuple[Inner, ...]
    words: Sequence[str]
    rates: Mapping[str, float]
    counts: dict[int, int] | None
    ok: bool = True
    share: Annotated[float, between(0, 1)] = 0.0
    port: Annotated[int, AT_LEAST_0] | None = None


GOOD: dict[str, Any] = {
    "name": "te1",
    "inner": {"number": 1},
    "many": [{"number": 2}],
    "words": ["a", "b"],
    "rates": {"x": 1},
    "counts": {"79": 2},
}


def test_plain_values_become_what_was_sent() -> None:
    assert conform(Outer, GOOD) == Outer(
        name="te1",
        inner=Inner(number=1),
        many=(Inner(number=2),),
        words=("a", "b"),
        rates={"x": 1.0},
        counts={79: 2},
    )
    assert conform(Outer, {**GOOD, "inner": None, "counts": None, "ok": False}).ok is False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 1}, "name should be str, and is 1"),
        ({"name": None}, "name should be str, and is None"),
        ({"inner": {"number": True}}, "inner.number should be int, and is True"),
        ({"inner": {"number": 1 << 64}}, "inner.number should be int, and is beyond 64 bits"),
        ({"inner": {}}, "inner lacks or should not have 'number'"),
        ({"many": {"number": 2}}, "many should be a list, and is an object of 1"),
        ({"many": [[]]}, "many should be an object, and is a list of 0"),
        ({"rates": {"x": float("nan")}}, "rates should be float, and is nan"),
        ({"rates": {"x": float("inf")}}, "rates should be float, and is inf"),
        ({"counts": {"many": 1}}, "counts should be a number, and is 'many'"),
        ({"share": 1.5}, "share should be from 0 to 1, and is 1.5"),
        ({"share": "1"}, "share should be float, and is '1'"),
        ({"port": -1}, "port should be at least 0, and is -1"),
        ({"ok": 1}, "ok should be bool, and is 1"),
        ({"more": 1}, "it lacks or should not have 'more'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed) as e:
        conform(Outer, {**GOOD, **change})

    assert str(e.value) == words


def test_text_can_be_written_and_damaged_memory_told() -> None:
    assert conform(str, "a\ud800b") == "a?b"
    assert conform(Real, float("-inf")) == float("-inf")


def test_an_object_has_its_members_and_no_others() -> None:
    assert members({"rank": int}, {"rank": 3}) == {"rank": 3}
    for other in ({}, {"rank": 3, "more": 1}, [], None):
        with pytest.raises(Malformed):
            members({"rank": int}, other)
