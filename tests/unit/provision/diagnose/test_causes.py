from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from provision.diagnose.causes import Text, diagnose, explain
from provision.diagnose.rows import NOT_IN_TEXTS, ROWS
from tests.conftest import RecordRefusal

CASES = {path.stem: yaml.safe_load(path.read_text()) for path in Path("tests/cases/diagnose").glob("*.yml")}
BY_NAME = {row.name: row for row in ROWS}


def rows_of(text: str) -> list[str]:
    return [found.row for found in diagnose([Text(name="rank0.log", text=text)], ROWS)]


def test_every_row_has_a_case_and_every_case_a_row() -> None:
    assert set(CASES) == set(BY_NAME)
    assert len(BY_NAME) == len(ROWS)


@pytest.mark.parametrize("name", CASES)
def test_a_real_text_leads_to_its_row_and_a_near_miss_does_not(name: str) -> None:
    case = CASES[name]

    assert re.match("provoked here|public: ", case["source"])
    assert rows_of(case["text"])[0] == name
    assert name not in rows_of(case["near_miss"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_says_cause_check_and_fix(row: object) -> None:
    assert all(len(getattr(row, field)) > 10 for field in ("cause", "check", "fix"))
    assert getattr(row, "fix").endswith(".")  # noqa: B009


def test_a_consequence_comes_after_the_cause_and_lines_are_counted_and_named() -> None:
    late, taken = CASES["rank-late"]["text"], CASES["port-taken"]["text"]
    texts = [Text(name="a", text=f"fine\n{late}\n{late}\n"), Text(name="b", text=f"{taken}\n")]

    found = diagnose(texts, ROWS)

    assert [(one.row, one.where, one.count, one.consequence) for one in found] == [
        ("port-taken", "b:1", 1, False),
        ("rank-late", "a:2", 2, True),
    ]


def test_a_healthy_log_shows_nothing() -> None:
    assert rows_of("epoch 1 loss 2.31\n2/4 steps done\nsaved to /data/jobs/1/checkpoints\n") == []
    assert rows_of("") == []


def test_a_long_line_is_cut() -> None:
    (found,) = diagnose([Text(name="x", text="Too many open files " + "x" * 9999)], ROWS)

    assert len(found.evidence) == 300


def test_words_of_a_finding_are_explained_by_rows() -> None:
    by_words = explain("progress", "rank 2: Connection closed by peer", ROWS)

    assert [row.name for row in by_words] == ["peer-gone"]
    assert [row.name for row in explain("sockets", "te1 cannot reach te2", ROWS)] == ["ports-filtered"]
    assert explain("progress", "rank 2 has said nothing", ROWS) == []


def test_what_no_text_shows_has_its_reason() -> None:
    assert all(reason.startswith("needs") for reason in NOT_IN_TEXTS.values())


@pytest.mark.attack("user")
@pytest.mark.parametrize(
    "word", ["shm ", "NET/Socket: Using [1]", "ss_family 2 vs", "ibv_modify_qp ", "1/1 clients ", "wait time"]
)
def test_a_line_of_many_beginnings_is_read_once(word: str, record_refusal: RecordRefusal) -> None:
    """From each of them to the line's end: minutes for a line of a megabyte."""
    record_refusal(rows_of(word * (1_000_000 // len(word))) or "nothing found, in time")


def test_the_second_word_is_found_behind_any_of_several_first() -> None:
    assert rows_of("shm_open: shm: No space left on device") == ["shared-memory"]
    assert rows_of("ss_family ss_family: 2 vs. 10") == ["address-family"]
    assert rows_of("2 vs. 10: ss_family") == []
