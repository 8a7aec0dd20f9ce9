"""What a node says of its part is held against what it may say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.store.node_state import Said, said_in
from tests.conftest import RecordRefusal


def test_a_line_is_read() -> None:
    line = json.dumps({"state": "arriving", "bytes": 5, "of": 10, "stuck": [0], "notes": ["te1: x"]})

    assert said_in(line.encode()) == Said(state="arriving", bytes=5, of=10, stuck=(0,), notes=("te1: x",))


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "line",
    [
        pytest.param("[]", id="a list"),
        pytest.param("[" * 50_000, id="nested"),
        pytest.param('{"state": "proud"}', id="another state"),
        pytest.param('{"state": "whole", "bytes": -1}', id="less than nothing"),
        pytest.param('{"state": "whole", "bytes": 1e400}', id="infinite"),
        pytest.param('{"state": "whole", "got": true}', id="true"),
        pytest.param('{"state": "whole", "stuck": [7]}', id="a lane that is none"),
        pytest.param('{"state": "whole", "stuck": 1}', id="lanes that are a number"),
        pytest.param('{"state": "whole", "notes": {"a": 1}}', id="notes that are no list"),
        pytest.param('{"state": "whole", "error": 5}', id="words that are none"),
    ],
)
def test_what_is_not_as_agreed_is_refused(line: str, record_refusal: RecordRefusal) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        said_in(line.encode())

    record_refusal(refused.value)


def test_its_words_are_one_line_of_text() -> None:
    line = json.dumps({"state": "failed", "error": "a\nte2: b\x1b[2J" + "x" * 1000})

    assert said_in(line.encode()).error.startswith("a / te2: bx")
    assert len(said_in(line.encode()).error) == 300


@given(st.binary(max_size=100))
def test_any_bytes_are_a_line_or_refused(line: bytes) -> None:
    try:
        assert said_in(line).state
    except ValueError:
        return
