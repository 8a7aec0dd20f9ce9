"""JSON as people write it, with positions that stay right; and any two batch sizes give the third."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.train.config import ConfigError, Situation, read_config
from runtime.train.config.load import DoesNotFit, parse, read_document, solve

ALONE = Situation(world_size=1)
SIZES = st.integers(1, 64)


def problem_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "ds_config.json")
    return str(caught.value)


def test_comments_and_trailing_commas_are_allowed() -> None:
    text = """{
      // a comment, with "quotes" and { braces
      "train_batch_size": 8, # another
      /* and one
         of two lines */
      "optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.95,],},},
    }"""

    assert parse(text, "x")["optimizer"]["params"]["betas"] == [0.9, 0.95]


def test_what_looks_like_a_comment_within_a_string_is_text() -> None:
    values = parse(r'{"a": "http://x # y /* z */ \" // w", "b": ",]"}', "x")

    assert values == {"a": 'http://x # y /* z */ " // w', "b": ",]"}


def test_a_fault_after_a_comment_is_located_where_it_is() -> None:
    text = '{\n  /* two\n  lines */ "a": 1\n  "b": 2\n}'

    assert problem_of(text) == (
        "use ds_config.json: line 4, column 3: Expecting ',' delimiter. Correct the JSON there."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "a: it is written twice in one object"),
        ('{"zero": {"b": 1, "b": 1}}', "b: it is written twice in one object"),
        ('{"a": NaN}', "NaN: it is not a number of JSON"),
        ("[1]", "the document: it is a list"),
        ("", "line 1, column 1: Expecting value"),
        ("[" * 100_000, "the document: it is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "the document: it has a number of thousands of digits"),
        ('"\\' * 100_000, "line 1, column 1: Unterminated string"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    assert said in problem_of(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such\.json: the file: No such file or directory"):
        read_document(tmp_path / "no such.json")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ds_config.json"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match="it is not text in UTF-8"):
        read_document(path)


def test_base64_is_read_as_the_hugging_face_integrations_pass_it() -> None:
    text = json.dumps({"train_batch_size": 8})
    encoded = base64.urlsafe_b64encode(text.encode()).decode()

    assert read_document(encoded).values == {"train_batch_size": 8}


def test_a_mapping_is_not_changed() -> None:
    config = {"train_batch_size": 8, "bfloat16": {"enabled": True}}

    read_config(config, ALONE)

    assert config == {"train_batch_size": 8, "bfloat16": {"enabled": True}}


def test_progress_that_never_comes_is_infinity_as_accelerate_has_it() -> None:
    config = {"train_batch_size": 8, "steps_per_print": float("inf")}

    assert read_config(config, ALONE).config.steps_per_print is None


def test_what_is_left_out_is_told_with_its_reason() -> None:
    zero = {"stage": 2, "offload_param": {"device": "cpu"}}
    config = {"train_batch_size": 8, "amp": {"enabled": False}, "zero_optimization": zero}

    assert read_config(config, ALONE).ignored == {
        "amp": "it is off",
        "zero_optimization.offload_param": "stage 2 keeps whole parameters on the device",
    }


def test_a_mapping_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="the dict: it cannot be written as JSON"):
        read_config({"train_batch_size": object()}, ALONE)


@given(SIZES, SIZES, SIZES, st.sets(st.sampled_from(["total", "micro", "steps"]), max_size=1))
def test_what_is_left_out_is_found_again(micro: int, steps: int, world_size: int, left_out: set[str]) -> None:
    sizes = {"total": micro * steps * world_size, "micro": micro, "steps": steps}
    given_sizes = {name: None if name in left_out else size for name, size in sizes.items()}

    batch = solve(**given_sizes, world_size=world_size)

    assert (batch.total, batch.micro, batch.steps) == (sizes["total"], micro, steps)


@given(st.none() | SIZES, st.none() | SIZES, st.none() | SIZES, SIZES)
def test_an_answer_satisfies_the_equation_and_keeps_what_was_given(
    total: int | None, micro: int | None, steps: int | None, world_size: int
) -> None:
    try:
        batch = solve(total=total, micro=micro, steps=steps, world_size=world_size)
    except DoesNotFit as e:
        batch = None
        said = e
    if batch is None:
        assert said.found
        assert said.fix
        return
    assert batch.total == batch.micro * batch.steps * world_size
    assert total in (None, batch.total)
    assert micro in (None, batch.micro)
    assert steps in (None, batch.steps)


def test_the_nearest_sizes_that_fit_are_named() -> None:
    with pytest.raises(DoesNotFit) as caught:
        solve(total=30, micro=None, steps=2, world_size=4)

    assert caught.value.fix == "Write train_batch_size 24 or 32."
