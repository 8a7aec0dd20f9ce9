"""The tests of the gate find a fault in each part of the product: put into a copy, it makes them fail."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FAULTS: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "cases" / "mutations.yml").read_text())


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_can_still_be_put_in_and_its_tests_are_those_of_the_gate(name: str) -> None:
    fault = FAULTS[name]

    assert (ROOT / fault["file"]).read_text().count(fault["was"]) == 1
    assert fault["becomes"] != fault["was"]
    for test in fault["found_by"]:
        module, _, function = test.partition("[")[0].partition("::")
        statements = ast.parse((ROOT / module).read_text()).body
        functions = {node.name: node for node in statements if is_test(node)}
        assert not function or function in functions
        marks = [ast.unparse(one) for one in functions[function].decorator_list] if function else []
        marks += [text for node in statements if (text := ast.unparse(node)).startswith("pytestmark")]
        assert not any("mark.long" in mark for mark in marks)


def is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git keeps of the project as it is here."""
    folder = tmp_path_factory.mktemp("copy")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target, follow_symlinks=False)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_product_fails_the_tests_that_must_find_it(name: str, copy: Path) -> None:
    fault = FAULTS[name]
    file = copy / fault["file"]
    right = file.read_text()
    file.write_text(right.replace(fault["was"], fault["becomes"]))
    words = ["-m", "pytest", "--quiet", "--exitfirst", "-p", "no:cacheprovider", *fault["found_by"]]

    ended = subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    file.write_text(right)

    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout + ended.stderr
    assert "1 failed" in ended.stdout.splitlines()[-1], ended.stdout
    print(f"{name}: {next(line for line in ended.stdout.splitlines() if line.startswith('FAILED'))}")
