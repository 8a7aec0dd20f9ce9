"""--env-file: what is read, what is refused, and that no refusal repeats a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import BadInput
from runtime.job.env_file import read_env_file, read_job_environment
from tests.conftest import RecordRefusal

SECRET = "hf_7Qv0s3cret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "it's $(secret).env"
    path.touch(mode=0o600)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as refused:
        read_env_file(path)
    said = str(refused.value)
    assert SECRET not in said
    return said


def test_lines_are_variables_and_values_stand_as_they_are(file: Path) -> None:
    file.write_text('# tokens\n\nHF_TOKEN=a=b # c\nQUOTED="x y"\r\nEMPTY=\nUNICODE=ä\u2028b\n')

    assert read_env_file(file) == {
        "HF_TOKEN": "a=b # c",
        "QUOTED": '"x y"',
        "EMPTY": "",
        "UNICODE": "ä\u2028b",
    }


@pytest.mark.parametrize(
    "line", [f"export A={SECRET}", SECRET, f"={SECRET}", f"ä={SECRET}", f"{SECRET}\0=x", f"A={SECRET}\0"]
)
def test_a_bad_line_is_named_by_its_number_alone(file: Path, line: str) -> None:
    file.write_text(f"# first\n{line}\n")

    assert f"{file}, line 2" in refusal(file)


def test_a_line_that_is_no_text_is_named_by_its_number(file: Path) -> None:
    file.write_bytes(f"A=1\nB={SECRET}\xff\n".encode("latin-1"))

    assert f"{file}, line 2: it is not UTF-8" in refusal(file)


def test_a_nodes_own_file_is_read_where_there_is_one_and_refused_in_words(file: Path) -> None:
    assert read_job_environment(file.with_name("absent")) == {}
    file.write_bytes(f"A=1\nB={SECRET}\xff\n".encode("latin-1"))

    with pytest.raises(BadInput, match=r"line 2: it is not UTF-8|line 2\n.*not UTF-8") as refused:
        read_job_environment(file)
    with pytest.raises(BadInput, match="Is a directory"):
        read_job_environment(file.parent)

    assert SECRET not in str(refused.value)


@pytest.mark.attack("user")
@pytest.mark.parametrize("mode", [0o604, 0o602, 0o640, 0o620, 0o610, 0o644])
def test_a_file_that_others_have_a_right_to_is_refused(
    file: Path, mode: int, record_refusal: RecordRefusal
) -> None:
    file.write_text(f"A={SECRET}\n")
    file.chmod(mode)

    said = refusal(file)
    record_refusal(said)

    assert f"its mode is {mode:04o}" in said
    assert f"chmod 600 {file}" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_whose_file_it_may_be(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(f"A={SECRET}\n")
    os.chown(file, 65534, 65534)
    assert "it belongs to user 65534" in refusal(file)

    os.chown(file, 0, 65534)
    file.chmod(0o640)
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert read_env_file(file) == {"A": SECRET}

    file.chmod(0o660)
    assert "its mode is 0660" in refusal(file)


@pytest.mark.attack("user")
def test_what_is_no_file_is_refused_and_not_waited_for(
    file: Path, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "link").symlink_to(file)

    planted = ("pipe", "link", "", "absent")
    expected = ("it is a pipe", "it is a link", "it is a folder", "No such file")
    for name, words in zip(planted, expected, strict=True):
        said = refusal(tmp_path / name)
        record_refusal(said)
        assert words in said


def test_a_file_without_end_is_refused(file: Path) -> None:
    file.write_text("A=1\n" * (1 << 19))

    assert "more than 1 MiB" in refusal(file)
