"""The script that nodes run, on environments made of a few files."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.unit.playbooks.digests import PACKAGES, conda_record, digest, write


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
