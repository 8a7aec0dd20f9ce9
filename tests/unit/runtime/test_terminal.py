"""Text of other nodes, and a job's own output, on this terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runtime.launch.cli import ConsoleWatcher
from runtime.terminal import output, printable
from tests.conftest import RecordRefusal

CASES: dict[str, dict[str, str]] = yaml.safe_load(
    (Path(__file__).parents[2] / "cases" / "terminal.yml").read_text()
)


@pytest.mark.attack("node")
@pytest.mark.parametrize("name", CASES)
def test_a_terminal_obeys_nothing_that_another_node_says(name: str, record_refusal: RecordRefusal) -> None:
    shown = printable(CASES[name]["said"])

    record_refusal(f"shown as {shown!r}")
    assert shown == CASES[name]["shown"]


@pytest.mark.parametrize("name", CASES)
def test_a_jobs_output_keeps_colours_and_the_return_of_a_progress_bar(name: str) -> None:
    assert output(CASES[name]["said"]) == CASES[name].get("output", CASES[name]["shown"])


@pytest.mark.attack("rank")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_jobs_output_cannot_write_over_what_others_said(
    rank: int, capsys: pytest.CaptureFixture[str], record_refusal: RecordRefusal
) -> None:
    watcher = ConsoleWatcher(("te1", "te2"), lambda _: None)

    watcher.on_text(rank, "\x1b[1A\x1b[2K\x1b]0;owned\x07loss 1\n")

    shown = capsys.readouterr().out
    record_refusal(f"shown as {shown!r}")
    assert shown == ("loss 1\n" if rank == 0 else "[te2:1] loss 1\n")
