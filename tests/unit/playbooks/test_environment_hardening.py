"""What the digest of an environment does not speak for: rights to its files; and that it is no other's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RecordRefusal
from tests.unit.playbooks.digests import PACKAGES, conda_record, digest, write


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


def hex_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hidden_in_a_hash(prefix: Path, program: Path) -> None:
    conda_record(prefix, sha256="aa\nfile b link c link d")
    (prefix / "b").unlink()


def hidden_in_a_path(prefix: Path, program: Path) -> None:
    other, link = prefix / "bin" / "a", prefix / "bin" / "l"
    folder = prefix / "bin" / f"a {hex_of(other)}\nfile bin" / "l link a\nfile bin"
    folder.mkdir(parents=True)
    program.rename(folder / program.name)
    other.unlink()
    link.unlink()


def hidden_in_a_link(prefix: Path, program: Path) -> None:
    link = prefix / "bin" / "l"
    link.unlink()
    link.symlink_to(f"a\nfile bin/python3.11 x {hex_of(program)}")
    program.unlink()


def hidden_behind_a_space(prefix: Path, program: Path) -> None:
    program.rename(f"{program} x")
    Path(f"{program} x").chmod(0o644)


def hidden_behind_a_link(prefix: Path, program: Path) -> None:
    (prefix / "b").unlink()
    (prefix / "b link c").symlink_to("d")


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "spoil",
    [
        hidden_in_a_hash,
        hidden_in_a_path,
        hidden_in_a_link,
        hidden_behind_a_space,
        hidden_behind_a_link,
    ],
)
def test_no_other_environment_has_the_same_digest(
    prefix: Path, spoil: Callable[[Path, Path], None], record_refusal: RecordRefusal
) -> None:
    program = prefix / "bin" / "python3.11"
    program.chmod(0o755)
    write(prefix / "bin" / "a", "another")
    (prefix / "bin" / "l").symlink_to("a")
    (prefix / "b").symlink_to("c link d")
    before = digest(prefix)["digest"]

    spoil(prefix, program)

    after = digest(prefix)["digest"]
    record_refusal(f"its digest is {after}, not {before}")
    assert after != before


def test_a_record_that_is_no_text_has_a_digest(prefix: Path) -> None:
    before = digest(prefix)["digest"]

    conda_record(prefix, build="\ud800")

    assert digest(prefix)["digest"] != before


def test_the_digest_of_an_honest_environment_is_what_it_always_was(prefix: Path) -> None:
    conda_record(prefix, sha256="")
    (prefix / "bin" / "python").symlink_to("python3.11")
    write(prefix / PACKAGES / "setuptools" / "script (dev).tmpl", "a")
    lines = [
        "conda python 3.11.7 0 ",
        "file bin/python link python3.11",
        f"file bin/python3.11 {hex_of(prefix / 'bin' / 'python3.11')}",
        f"file {PACKAGES}/setuptools/script (dev).tmpl {hashlib.sha256(b'a').hexdigest()}",
        f"file {PACKAGES}/torch/__init__.py {hashlib.sha256(b'version = 2').hexdigest()}",
    ]

    text = "".join(f"{line}\n" for line in lines)
    assert digest(prefix)["digest"] == hashlib.sha256(text.encode()).hexdigest()
