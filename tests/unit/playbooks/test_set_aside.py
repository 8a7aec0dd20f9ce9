"""The module `set_aside`, run by Ansible itself on folders of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.playbooks.test_modules import run_module

CLAIM = ".clusterwright/record.json"


def set_aside(path: Path, state: str, *flags: str) -> dict[str, Any]:
    return run_module("set_aside", {"path": str(path), "claim": CLAIM, "state": state}, *flags)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """An environment of somebody else."""
    path = tmp_path / "envs" / "llm"
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").write_text("theirs")
    return path


def test_what_is_there_is_set_aside_and_kept_under_a_name_of_its_own(theirs: Path) -> None:
    foreseen = set_aside(theirs, "begun", "--check")
    assert (theirs / "bin" / "python").exists()
    begun = set_aside(theirs, "begun")
    claims = [path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file()]
    kept = set_aside(theirs, "kept")

    assert foreseen["changed"]
    assert begun["aside"] == f"{theirs.parent}/.llm.previous"
    assert claims == [Path(CLAIM)]
    assert kept["aside"].startswith(f"{theirs}.before-2")
    assert Path(kept["aside"], "bin", "python").read_text() == "theirs"
    assert not set_aside(theirs, "kept")["changed"]


def test_a_build_that_fails_leaves_what_was_there(theirs: Path) -> None:
    set_aside(theirs, "begun")
    (theirs / "partial").write_text("ours")

    back = set_aside(theirs, "back")

    assert back["put_back"]
    assert [path.name for path in theirs.parent.iterdir()] == ["llm"]
    assert [path.name for path in theirs.iterdir()] == ["bin"]
    assert not set_aside(theirs, "back")["changed"]


def test_an_unfinished_build_of_ours_is_begun_anew_and_nothing_is_set_aside_twice(theirs: Path) -> None:
    set_aside(theirs, "begun")
    (theirs / "partial").write_text("ours")

    again = set_aside(theirs, "begun")

    assert again["aside"] == f"{theirs.parent}/.llm.previous"
    assert not (theirs / "partial").exists()
    (theirs / CLAIM).write_text("a person's")
    refused = set_aside(theirs, "begun")
    assert refused["failed"]
    assert ".llm.previous is there already" in refused["msg"]
    assert (theirs / CLAIM).read_text() == "a person's"


def test_a_link_and_a_file_are_set_aside_as_they_are(theirs: Path) -> None:
    link, file = theirs.with_name("link"), theirs.with_name("file")
    link.symlink_to(theirs)
    file.write_text("a file")

    for path in (link, file):
        assert set_aside(path, "begun")["aside"]
        assert set_aside(path, "back")["put_back"]

    assert link.readlink() == theirs
    assert (theirs / "bin" / "python").read_text() == "theirs"
    assert file.read_text() == "a file"
