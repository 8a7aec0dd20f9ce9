from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from provision.cli import app
from provision.errors import BadInput

TAKEN = "DistNetworkError: code: -98, name: EADDRINUSE, message: address already in use\n"
LATE = "RuntimeError: Timed out waiting 4000ms for recv operation to complete\n"


def test_a_text_on_standard_input_is_examined() -> None:
    told = CliRunner().invoke(app, ["doctor", "--json"], input=f"step 3\n{TAKEN}")

    (found,) = json.loads(told.stdout)
    assert told.exit_code == 1
    assert (found["row"], found["where"]) == ("port-taken", "standard input:2")


def test_logs_of_a_job_are_named_by_file_and_line_and_the_cause_comes_first(tmp_path: Path) -> None:
    (tmp_path / "rank0.log").write_text(f"fine\nfine\n{LATE}")
    (tmp_path / "rank1.log").write_text(TAKEN)
    (tmp_path / "notes.txt").write_text("Too many open files")

    told = CliRunner().invoke(app, ["doctor", "--logs", str(tmp_path)])

    lines = told.stdout.splitlines()
    assert told.exit_code == 1
    assert lines[0].startswith(f"cause port-taken {tmp_path}/rank1.log:1:")
    assert any(line.startswith(f"consequence rank-late {tmp_path}/rank0.log:3:") for line in lines)
    assert "files-open" not in told.stdout


def test_a_healthy_text_ends_with_0() -> None:
    told = CliRunner().invoke(app, ["doctor"], input="loss 2.3\n")

    assert (told.exit_code, told.stdout) == (0, "nothing found\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["doctor", "--logs", "/nonexistent"], "there is no such folder"),
        (["doctor", "--logs", "/proc/self/net/stat"], r"no rank\*.log and no agent\*.log there"),
        (["doctor"], "standard input has none"),
        (["doctor", "-i", "/nonexistent"], "there is none"),
        (["doctor", "-i", "x", "--logs", "y"], "Give one of them"),
        (["smoke"], "it takes -i, with which go"),
        (["smoke", "-i", "x", "--fault", "link-down"], "or --drill, with which goes one of --fault"),
    ],
)
def test_what_cannot_be_examined_is_bad_input(words: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        CliRunner().invoke(app, words, input="", catch_exceptions=False)
