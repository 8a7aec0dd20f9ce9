"""Text of other machines on this terminal; the same cases hold for both packages."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import yaml

from provision.edges.terminal import Console
from provision.printable import printable
from tests.conftest import RecordRefusal

CASES: dict[str, dict[str, str]] = yaml.safe_load(
    (Path(__file__).parents[2] / "cases" / "terminal.yml").read_text()
)


@pytest.mark.attack("node")
@pytest.mark.parametrize("name", CASES)
def test_a_terminal_obeys_nothing_that_another_machine_says(name: str, record_refusal: RecordRefusal) -> None:
    shown = printable(CASES[name]["said"])

    record_refusal(f"shown as {shown!r}")
    assert shown == CASES[name]["shown"]


@pytest.mark.parametrize("name", CASES)
def test_what_is_printed_is_printable_and_keeps_our_own_colours(name: str) -> None:
    file = io.StringIO()

    console = Console(file=file, force_terminal=True, width=80, highlight=False)
    console.print(CASES[name]["said"], markup=False, style="red")

    escapes = re.findall(r"\x1b\[?[0-9;]*.", file.getvalue())
    assert set(escapes) <= {"\x1b[31m", "\x1b[0m"}
    assert printable(file.getvalue()).split() == CASES[name]["shown"].split()
    assert set(file.getvalue()) & set("\x07\x08\x0b\x7f\x9b\x9d\u202e\u2066") == set()
