"""The end of a failed `make test` names what failed, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.failures import failures_in

pytest_plugins = ["pytester"]

FAILING = """
import pytest

def deep(number):
    assert number == 2, "\\n".join(["the number"] + ["more"] * 50)

def test_one():
    deep(1)

@pytest.fixture
def broken():
    raise RuntimeError("no disk")

def test_two(broken):
    print("E   what a test printed is not shown")

def test_three():
    pass
"""


def test_a_failed_test_is_named_with_what_it_found_and_where(pytester: pytest.Pytester) -> None:
    module = pytester.makepyfile(FAILING)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", module], text=True, stdout=subprocess.PIPE
    )

    found = [
        " ".join(line.split()) for line in failures_in(f"others: {line}" for line in ran.stdout.splitlines())
    ]

    assert [line.replace("_", "") for line in found if "___" in line] == [
        "others:  ERROR at setup of testtwo ",
        "others:  testone ",
    ]
    assert "others: E RuntimeError: no disk" in found
    assert any(line.startswith("others: E AssertionError: the number") for line in found)
    assert not any("test_three" in line for line in found)
    assert sum("more" in line for line in found) < 15


def test_targets_linters_and_budgets_are_named_and_what_passed_is_not() -> None:
    said = [
        "background: provision/cli.py:3:1: error: Name is not defined  [name-defined]",
        "background: Found 1 error in 1 file (checked 352 source files)",
        "background: make[2]: *** [Makefile:70: lint] Error 1",
        "four-nodes: tests/lab/test_site.py is over its budget: 90 s for 30, where the fixed work took 20 ms",
        "others: tests/lab/test_kept.py has no budget: 60 s. Give it one: make budget",
        "others: E   no section of failures is open",
        "others: ======= 59 passed in 3.00s =======",
        "make: *** [Makefile:38: test] Error 2",
    ]

    assert list(failures_in(said)) == [said[0], said[2], said[3], said[7]]


def test_the_file_of_a_run_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"others: \xff\nmake: *** [Makefile:38: test] Error 2\n")

    ran = subprocess.run(
        [sys.executable, "-m", "tests.failures", log], text=True, stdout=subprocess.PIPE, check=True
    )

    assert ran.stdout.splitlines()[-1] == "make: *** [Makefile:38: test] Error 2"
