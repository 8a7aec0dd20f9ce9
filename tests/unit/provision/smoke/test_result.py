from __future__ import annotations

import json

import pytest

from provision.diagnose.rows import ROWS
from provision.smoke.result import SmokeResult, exit_code, explained, parse

FINDING = {
    "check": "master port",
    "hosts": ["te1"],
    "ranks": [0],
    "found": "Address already in use",
    "fix": "Pass another.",
    "conclusive": True,
}


def result(verdict: str) -> SmokeResult:
    parsed = parse(json.dumps({"verdict": verdict, "seconds": 3.5, "findings": [FINDING], "pairs": []}))
    assert parsed is not None
    return parsed


def test_the_document_of_a_test_is_read() -> None:
    read = result("fail")

    assert (read.verdict, read.seconds, read.findings[0].hosts) == ("fail", 3.5, ("te1",))
    assert read.findings[0].words == "master port: Address already in use"


@pytest.mark.parametrize("text", ["", '{"verdict": "pa', "[]", '{"verdict": "pass"}', "null"])
def test_half_a_document_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("status", "verdict", "expected"),
    [
        (0, "pass", 0),
        (1, "fail", 1),
        (4, "inconclusive", 4),
        (2, None, 2),
        (0, None, 4),
        (0, "fail", 4),
        (1, "pass", 4),
        (124, None, 4),
        (124, "pass", 4),
        (137, "fail", 4),
        (1, None, 4),
    ],
)
def test_it_passes_only_when_program_and_result_agree(
    status: int, verdict: str | None, expected: int
) -> None:
    assert exit_code(status, result(verdict) if verdict else None) == expected


def test_a_finding_gets_the_doctor_s_rows_and_keeps_the_rest() -> None:
    document = explained(result("fail"), ROWS)

    assert document["pairs"] == []
    assert [row["row"] for row in document["findings"][0]["rows"]] == ["port-taken"]
    assert document["findings"][0]["fix"] == "Pass another."
