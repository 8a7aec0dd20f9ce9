"""The script that nodes run, on environments made of a few files."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import marshal
import os
import struct
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RecordRefusal

SCRIPT = Path(__file__).parents[3] / "playbooks" / "roles" / "conda_env" / "files" / "environment_digest.py"
PACKAGES = Path("lib/python3.11/site-packages")


def digest(prefix: Path, *words: str, status: int = 0) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, "-E", "-s", SCRIPT, "--prefix", prefix, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == status, finished.stderr
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def conda_record(prefix: Path, **other: object) -> None:
    record = {"name": "python", "version": "3.11.7", "build": "0", "sha256": "aa", **other}
    write(prefix / "conda-meta" / "python-3.11.7-0.json", json.dumps(record))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "envs" / "llm"
    conda_record(root, link={"source": "/somewhere"})
    write(root / "bin" / "python3.11", "interpreter")
    (root / "bin" / "python").symlink_to("python3.11")
    write(root / PACKAGES / "torch" / "__init__.py", "version = 2")
    write(root / PACKAGES / "torch-2.13.0+cpu.dist-info" / "METADATA", "Name: torch")
    return root


def test_the_report_counts_and_names_what_is_installed(prefix: Path) -> None:
    report = digest(prefix)

    assert report["conda"] == 1
    assert report["files"] == 4
    assert report["packages"] == {"python": "3.11.7", "torch": "2.13.0+cpu"}


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


@pytest.mark.attack("node")
@pytest.mark.parametrize("distribution", ["torch-2.13.0+cpu", "clusterwright-0.1.0"])
@pytest.mark.parametrize("planted", ["evil.pth", "runtime.py", "zerorun.pth", "runtimes/__init__.py"])
def test_a_file_that_a_package_s_record_lists_counts(
    prefix: Path, distribution: str, planted: str, record_refusal: RecordRefusal
) -> None:
    write(prefix / PACKAGES / "clusterwright-0.1.0.dist-info" / "METADATA", "Name: clusterwright")
    digest(prefix, "--record")
    write(prefix / PACKAGES / planted, "import os; os.system('id')")
    with (prefix / PACKAGES / f"{distribution}.dist-info" / "RECORD").open("a") as record:
        record.write(f"{planted},,\n")

    found = digest(prefix, "--verify", status=1)["differences"]
    record_refusal(found)
    assert f"extra {PACKAGES}/{planted}" in found


def test_bytecode_dates_and_condas_history_do_not_count(prefix: Path) -> None:
    before = digest(prefix)["digest"]
    write(prefix / PACKAGES / "torch" / "__pycache__" / "__init__.cpython-311.pyc", "bytecode")
    write(prefix / "conda-meta" / "history", "==> 2026-11-21 <==")
    conda_record(prefix, link={"source": "/elsewhere"}, timestamp=1)
    os.utime(prefix / "bin" / "python3.11", (1, 1))

    assert digest(prefix)["digest"] == before


def test_the_distribution_clusterwright_does_not_count(prefix: Path) -> None:
    before = digest(prefix)
    write(prefix / PACKAGES / "runtime" / "__init__.py", "")
    write(prefix / "bin" / "zerorun", "#!")
    records = "runtime/__init__.py,,\n../../../bin/zerorun,,\nclusterwright-0.1.0.dist-info/RECORD,,\n"
    write(prefix / PACKAGES / "clusterwright-0.1.0.dist-info" / "RECORD", records)

    after = digest(prefix)

    assert (after["digest"], after["packages"]) == (before["digest"], before["packages"])


@pytest.mark.parametrize(
    "change",
    [
        {"version": "3.11.8"},
        {"build": "1"},
        {"sha256": "bb"},
    ],
)
def test_another_conda_package_is_another_environment(prefix: Path, change: dict[str, str]) -> None:
    before = digest(prefix)["digest"]

    conda_record(prefix, **change)

    assert digest(prefix)["digest"] != before


def test_one_changed_byte_is_named_though_size_and_date_are_as_before(prefix: Path) -> None:
    digest(prefix, "--record", "--built-from", "locks")
    changed = prefix / PACKAGES / "torch" / "__init__.py"
    times = changed.stat()
    changed.write_text("version = 3")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))

    report = digest(prefix, "--verify", status=1)

    assert report["differences"] == [f"changed {PACKAGES}/torch/__init__.py"]
    assert report["digest"] != report["recorded"]
    assert report["built_from"] == "locks"


def test_missing_and_extra_files_a_link_and_a_lost_permission_are_named(prefix: Path) -> None:
    (prefix / "bin" / "python3.11").chmod(0o755)
    digest(prefix, "--record")
    (prefix / "bin" / "python").unlink()
    (prefix / "bin" / "python").symlink_to("python3.12")
    (prefix / "bin" / "python3.11").chmod(0o644)
    (prefix / PACKAGES / "torch" / "__init__.py").unlink()
    write(prefix / "extra", "")

    assert digest(prefix, "--verify", status=1)["differences"] == [
        "changed bin/python",
        "changed bin/python3.11",
        "extra extra",
        f"missing {PACKAGES}/torch/__init__.py",
    ]


def test_an_untouched_environment_verifies_again_and_again_read_or_not(prefix: Path) -> None:
    recorded = digest(prefix, "--record")

    assert digest(prefix, "--verify")["digest"] == recorded["digest"]
    assert digest(prefix, "--verify", "--full")["differences"] == []


def test_a_prefix_that_is_not_there_is_reported_and_does_not_verify(tmp_path: Path) -> None:
    report = digest(tmp_path / "envs" / "none", "--verify", status=1)

    assert (report["exists"], report["digest"], report["files"]) == (False, "", 0)
    assert report["free_bytes"] > 0


def test_a_changed_file_of_this_project_is_found_where_it_is_asked_for(prefix: Path) -> None:
    write(prefix / PACKAGES / "runtime" / "a.py", "as installed")
    installed = base64.urlsafe_b64encode(hashlib.sha256(b"as installed").digest()).decode().rstrip("=")
    rows = f"runtime/a.py,sha256={installed},12\nclusterwright-0.1.0.dist-info/RECORD,,\n"
    write(prefix / PACKAGES / "clusterwright-0.1.0.dist-info" / "RECORD", rows)
    digest(prefix, "--record", "--built-from", "locks")
    assert digest(prefix, "--own")["different"] == 0

    write(prefix / PACKAGES / "runtime" / "a.py", "by hand")

    assert digest(prefix)["different"] == 0
    assert digest(prefix, "--own")["differences"] == [f"changed {PACKAGES}/runtime/a.py"]


@pytest.mark.parametrize("name", ["state", "pinned"])
def test_what_a_person_told_conda_is_found_where_it_is_asked_for(prefix: Path, name: str) -> None:
    digest(prefix, "--record", "--built-from", "locks")

    write(prefix / "conda-meta" / name, '{"env_vars": {"HF_HOME": "/data/hub"}}')

    assert digest(prefix)["different"] == 0
    assert digest(prefix, "--own")["differences"] == [f"extra conda-meta/{name}"]


def test_what_has_no_record_is_described_and_not_read(prefix: Path) -> None:
    os.mkfifo(prefix / "bin" / "pipe")
    write(prefix / "conda-meta" / "odd.json", "{")

    report = digest(prefix, "--only-recorded")

    assert (report["occupied"], report["built_from"], report["unfinished"]) == (True, "", False)
    assert (report["files"], report["holds"]) == (0, ["bin", "conda-meta", "lib"])
    assert digest(prefix)["files"] == 5


def test_an_empty_folder_a_link_and_a_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "file").write_text("")
    reports = {name: digest(tmp_path / name) for name in ("empty", "link", "file", "none")}

    assert [name for name, report in reports.items() if report["occupied"]] == ["link", "file"]
    assert reports["link"]["link"] == "elsewhere"


def test_what_is_kept_beside_it_is_reported(prefix: Path) -> None:
    (prefix.parent / "llm.before-20261126T2231").mkdir()
    write(prefix / ".clusterwright" / "record.json", '{"unfinished": true}\n')

    report = digest(prefix)

    assert report["unfinished"]
    assert report["kept"] == [f"{prefix.parent}/llm.before-20261126T2231"]
