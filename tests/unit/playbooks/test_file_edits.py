"""Files of which a part is ours: what others wrote in them stays, byte for byte; needs root for owners."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.playbooks.test_node_files import run_module

BEGIN, END = "# begin", "# end"
BLOCK = f"{BEGIN}\nours\n{END}\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of nodes are root's")


def write(path: Path, **wanted: Any) -> dict[str, Any]:
    files = [{"path": str(path), **wanted}]
    return run_module("write_files", {"files": files, "journal": str(path.with_name("journal.json"))})


def test_bytes_that_are_no_utf_8_stay_where_the_controller_changes_other_lines(tmp_path: Path) -> None:
    """As /etc/ssh/sshd_config: module observe reads it, and the controller hands the whole text back."""
    path = tmp_path / "sshd_config"
    theirs = b"# caf\xe9\nMatch User m\xfcller\n  ForceCommand /bin/false\n"
    path.write_bytes(theirs)
    seen = run_module("observe", {"files": [str(path)]})["files"][str(path)]["text"]

    first = write(path, content=f"Include x\n{seen}", lines=["Include x"])
    again = write(path, content=f"Include x\n{seen}", lines=["Include x"])

    assert path.read_bytes() == b"Include x\n" + theirs
    assert [first["changed"], again["changed"]] == [True, False]
    run_module("restore_files", {"journal": str(tmp_path / "journal.json")})
    assert path.read_bytes() == theirs


@pytest.mark.parametrize("is_one_left_out", [False, True])
def test_lines_of_other_bytes_that_look_alike_are_not_taken_for_each_other(
    is_one_left_out: bool, tmp_path: Path
) -> None:
    path = tmp_path / "sshd_config"
    theirs = b"DenyUsers m\xfcller\nDenyUsers m\xf6ller\n"
    path.write_bytes(theirs)
    seen = run_module("observe", {"files": [str(path)]})["files"][str(path)]["text"]
    text = seen.split("\n", 1)[1] if is_one_left_out else f"Include x\n{seen}"

    written = write(path, content=text)

    if is_one_left_out:
        assert "lines that are no UTF-8 look alike" in written["msg"]
        assert path.read_bytes() == theirs
    else:
        assert path.read_bytes() == b"Include x\n" + theirs


def test_a_block_yields_the_short_names_that_others_have(tmp_path: Path) -> None:
    """As members.yml, which looks at nothing, writes /etc/hosts."""
    path = tmp_path / "hosts"
    path.write_text("10.0.0.9 te2.corp.example TE2\n# te1\n")

    write(
        path, block=f"{BEGIN}\n10.0.0.1 te1.a.example te1\n10.0.0.2 te2.a.example te2\n{END}\n", yields=True
    )

    assert path.read_text().endswith(
        f"\n{BEGIN}\n10.0.0.1 te1.a.example te1\n10.0.0.2 te2.a.example\n{END}\n"
    )


@pytest.mark.parametrize("behind", ["somebody's\n", ""])
def test_nothing_is_written_where_our_part_has_no_end(behind: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    before = f"first\n{BEGIN}\nours of before\n{behind}"
    path.write_text(before)

    refused = write(path, block=BLOCK)

    assert refused["failed"]
    assert f"there is no '{END}' behind '{BEGIN}'" in refused["msg"]
    assert path.read_text() == before


def test_nothing_is_put_back_where_our_part_has_no_end(tmp_path: Path) -> None:
    path, other = tmp_path / "hosts", tmp_path / "other"
    path.write_text("first\n")
    other.write_text("before\n")
    write(other, content="ours\n")
    write(path, block=BLOCK)
    edited = path.read_text().replace(f"{END}\n", "somebody's\n")
    path.write_text(edited)

    refused = run_module("restore_files", {"journal": str(tmp_path / "journal.json")})

    assert refused["failed"]
    assert f"nothing was put back. {path}: there is no '{END}'" in refused["msg"]
    assert (path.read_text(), other.read_text()) == (edited, "ours\n")


def test_our_part_is_known_by_its_lines_with_the_ends_that_others_gave_them(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"first\x0c# begin\r\n" + BLOCK.replace("\n", "\r\n").encode() + b"last\r\n")

    write(path, block=BLOCK)

    assert path.read_bytes() == b"first\x0c# begin\r\nlast\r\n\n" + BLOCK.encode()


@pytest.mark.parametrize("before", ["PermitRootLogin no\n", ""])
def test_what_somebody_writes_between_the_look_and_the_write_stays(before: str, tmp_path: Path) -> None:
    """A line that denies somebody would be gone from sshd_config, without a word."""
    path = tmp_path / "sshd_config"
    if before:
        path.write_text(before)
    found = run_module("observe", {"files": [str(path)]})["files"][str(path)] or {"text": "", "sha256": ""}
    wanted = {"content": f"Include x\n{found['text']}", "seen": found["sha256"]}
    path.write_text(f"{before}DenyUsers mallory\n")

    refused = write(path, **wanted)

    assert refused["failed"]
    assert f"{path} was changed since it was looked at: run it again" in refused["msg"]
    assert path.read_text() == f"{before}DenyUsers mallory\n"
    path.write_text(before) if before else path.unlink()
    assert write(path, **wanted)["changed"]
