"""Bytecode of an environment: what Python made itself is told from what somebody planted."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import struct
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.unit.playbooks.digests import PACKAGES, SCRIPT, digest, write

# A module of the environment, which a Python of the environment imports.
MODULE = Path("lib/python3.11/site-packages/answer.py")
CACHED = Path("lib/python3.11/site-packages/__pycache__/answer.cpython-311.pyc")
SOURCE = """
SETS = {"a", "b"} <= frozenset({"x", "yy", "zzz"}), 1.5, None, b"b", ...
def answer(*, deep: int = 42) -> int:
    try:
        return [lambda: deep for _ in range(2)][0]()
    except ValueError:
        return 0
"""


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """An environment with a Python of its own, and one module that it has imported."""
    root = tmp_path / "envs" / "llm"
    venv.create(root, symlinks=True, with_pip=False)
    write(root / MODULE, SOURCE)
    digest(root, "--record", "--built-from", "locks")
    assert ask(root) == "42"
    return root


def ask(root: Path, *options: str) -> str:
    words = [root / "bin" / "python", *options, "-c", "import answer; print(answer.answer())"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(words, env=plain, capture_output=True, text=True, check=True).stdout.strip()


def plant(root: Path, where: Path = CACHED, *, unchecked: bool = False) -> None:
    """Other bytecode under the marks of the source, as Python wants them (PEP 552)."""
    source = root / MODULE
    evil = compile("def answer(): return 'evil'", str(source), "exec")
    status = source.stat()
    marks = struct.pack("<III", 0, int(status.st_mtime), status.st_size)
    header = importlib.util.MAGIC_NUMBER + (struct.pack("<I8x", 1) if unchecked else marks)
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).write_bytes(header + marshal.dumps(evil))


def test_bytecode_that_python_made_is_right_at_each_level_and_remembered(real: Path) -> None:
    ask(real, "-OO")
    kept = real / ".clusterwright" / "bytecode.json"

    assert digest(real, "--verify", "--full")["different"] == 0
    assert not kept.exists()
    assert digest(real, "--verify", "--bytecode", "--keep")["different"] == 0
    assert len(json.loads(kept.read_text())) == 2
    (real / "bin" / "python").unlink()
    (real / "bin" / "python").symlink_to("/bin/false")
    assert digest(real, "--bytecode")["differences"] == ["changed bin/python"]


@pytest.mark.attack("node")
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("unchecked", [False, True])
def test_planted_bytecode_that_python_would_run_is_found(
    real: Path, known: bool, unchecked: bool, record_refusal: RecordRefusal
) -> None:
    if known:
        digest(real, "--bytecode", "--keep")
    plant(real, unchecked=unchecked)
    assert ask(real) == "evil"

    full = digest(real, "--verify", "--full", status=1)
    found = digest(real, "--bytecode", "--keep")

    record_refusal(f"{full['differences']}")
    assert full["differences"] == found["differences"] == [f"changed {CACHED}"]
    assert (found["bytecode"], found["digest"]) == (1, found["recorded"])
    assert digest(real, "--bytecode")["bytecode"] == 1


@pytest.mark.attack("node")
def test_bytecode_that_marshal_cannot_read_is_found(real: Path, record_refusal: RecordRefusal) -> None:
    whole = (real / CACHED).read_bytes()
    (real / CACHED).write_bytes(whole[:16] + b"\xff" * 40)

    found = digest(real, "--full")["differences"]
    record_refusal(found)
    assert found == [f"changed {CACHED}"]


def test_bytecode_of_an_older_source_is_not_run_and_not_found_until_it_would_be(real: Path) -> None:
    date = (real / MODULE).stat().st_mtime
    plant(real)
    os.utime(real / MODULE, (1, 1))
    assert digest(real, "--bytecode", "--keep")["different"] == 0
    assert ask(real, "-B") == "42"

    os.utime(real / MODULE, (date, date))

    assert ask(real) == "evil"
    assert digest(real, "--bytecode", "--keep")["bytecode"] == 1


@pytest.mark.parametrize("is_planted", [False, True])
def test_what_was_compiled_just_now_needs_no_judge_and_what_lay_there_does(
    real: Path, is_planted: bool
) -> None:
    if is_planted:
        plant(real)
    else:
        (real / CACHED).unlink()

    subprocess.run([sys.executable, SCRIPT, "--prefix", real, "--compile", "import answer"], check=True)

    kept = json.loads((real / ".clusterwright" / "bytecode.json").read_text())
    assert (str(CACHED) in kept) is not is_planted
    assert digest(real, "--bytecode", "--keep")["bytecode"] == is_planted


def test_bytecode_of_a_source_that_is_a_link_is_judged(real: Path) -> None:
    (real / MODULE).rename(real / MODULE.with_name("kept.py"))
    (real / MODULE).symlink_to("kept.py")
    digest(real, "--record", "--built-from", "locks")

    plant(real)

    assert ask(real) == "evil"
    assert digest(real, "--bytecode", "--keep")["differences"] == [f"changed {CACHED}"]


@pytest.mark.attack("node")
@pytest.mark.parametrize("where", ["answer.pyc", "evil.pyc", "answer/__init__.pyc"])
def test_bytecode_that_needs_no_source_counts_as_a_file(
    real: Path, where: str, record_refusal: RecordRefusal
) -> None:
    (real / MODULE.parent / "answer").mkdir(exist_ok=True)
    plant(real, PACKAGES / where)

    report = digest(real, "--verify", status=1)

    record_refusal(report["differences"])
    assert report["differences"] == [f"extra {MODULE.parent}/{where}"]


@pytest.mark.attack("node")
def test_a_folder_of_bytecode_that_is_a_link_counts_as_a_file(
    real: Path, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    (real / CACHED).parent.rename(tmp_path / "elsewhere")
    (real / CACHED).parent.symlink_to(tmp_path / "elsewhere")

    found = digest(real, "--verify", status=1)["differences"]
    record_refusal(found)
    assert found == [f"extra {CACHED.parent}"]


@pytest.mark.attack("node")
def test_of_an_environment_from_elsewhere_nothing_is_run(real: Path, record_refusal: RecordRefusal) -> None:
    plant(real)

    found = digest(real, "--verify", "--full", "--files-only")["different"]
    record_refusal(f"of its bytecode {found} files were looked at")
    assert found == 0


def test_all_bytecode_can_be_taken_away(real: Path) -> None:
    plant(real)

    assert digest(real, "--bytecode", "--clear-bytecode")["different"] == 0

    assert list(real.rglob("*.pyc")) == []
    assert ask(real) == "42"
