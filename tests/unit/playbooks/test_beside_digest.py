"""What no digest of an environment speaks for, in the script that nodes run: rights to its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.unit.playbooks.test_environment_digest import PACKAGES, conda_record, digest, write


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "envs" / "llm"
    conda_record(root)
    write(root / "bin" / "python3.11", "interpreter")
    write(root / PACKAGES / "torch" / "__init__.py", "version = 2")
    return root


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    ("place", "mode"),
    [
        ("bin/python3.11", 0o4755),
        ("bin/python3.11", 0o2755),
        (f"{PACKAGES}/torch/__init__.py", 0o646),
        (f"{PACKAGES}/torch", 0o757),
        ("conda-meta", 0o757),
        ("lib/__pycache__/a.pyc", 0o646),
        (".", 0o757),
    ],
)
def test_what_others_may_write_or_run_as_its_owner_is_named_and_put_right(
    prefix: Path, place: str, mode: int, record_refusal: RecordRefusal
) -> None:
    write(prefix / "lib" / "__pycache__" / "a.pyc", "bytecode")
    (prefix / "bin" / "python3.11").chmod(0o755)
    recorded = digest(prefix, "--record", "--built-from", "locks")
    (prefix / place).chmod(mode)

    found = digest(prefix, "--verify", "--full", "--files-only", status=1)

    record_refusal(found["differences"])
    assert len(found["differences"]) == found["open"] == 1
    assert found["differences"][0].startswith(f"open {place} (mode {mode:04o}, owner ")
    assert (found["digest"], found["bytecode"]) == (recorded["digest"], 0)
    digest(prefix, "--only-recorded", "--close")
    assert digest(prefix, "--verify")["differences"] == []
    assert (prefix / place).stat().st_mode & 0o7022 == 0
    assert digest(prefix, "--verify")["built_from"] == "locks"


@pytest.mark.attack("node")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_is_another_s_is_named_and_taken_back(prefix: Path, record_refusal: RecordRefusal) -> None:
    (prefix / "link").symlink_to("/etc")
    digest(prefix, "--record", "--built-from", "locks")
    os.chown(prefix / "bin", 65534, 65534)
    os.chown(prefix / "bin" / "python3.11", 0, 65534)
    (prefix / "bin" / "python3.11").chmod(0o664)

    found = digest(prefix, "--verify", status=1)["differences"]

    record_refusal(found)
    assert found == [
        "open bin (mode 0755, owner 65534, group 65534)",
        "open bin/python3.11 (mode 0664, owner 0, group 65534)",
    ]
    before = os.stat("/etc")
    digest(prefix, "--close")
    assert digest(prefix, "--verify")["differences"] == []
    assert os.stat("/etc") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only files of root can be its group's")
def test_what_root_s_group_may_write_as_packages_bring_it_is_not_named(prefix: Path) -> None:
    (prefix / "bin" / "python3.11").chmod(0o775)
    (prefix / "bin").chmod(0o2775)

    digest(prefix, "--record", "--built-from", "locks")

    assert digest(prefix, "--verify", "--full", "--files-only")["differences"] == []
