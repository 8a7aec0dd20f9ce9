"""What is committed in a folder, who may save there, and what may go."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from runtime.errors import BadInput
from runtime.train.checkpoint.folder import (
    check_tag,
    claim,
    commit,
    entries,
    free_name,
    leftovers,
    partial_name,
    read_latest,
    remove,
    to_prune,
)
from tests.unit.runtime.train.checkpoint.written import write_checkpoint


def tags(root: Path) -> list[str]:
    return [entry.tag for entry in entries(root)]


def test_checkpoints_are_listed_by_step_whatever_their_names(tmp_path: Path) -> None:
    for step, tag in ((9, "a"), (10, "best"), (2, "z")):
        write_checkpoint(tmp_path, step, tag=tag)

    assert tags(tmp_path) == ["best", "a", "z"]
    assert read_latest(tmp_path) == "z"


def test_what_has_no_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    (tmp_path / partial_name("global_step2", "run", "session")).mkdir()
    (tmp_path / "notes").mkdir()

    assert tags(tmp_path) == ["global_step1"]


def test_a_damaged_manifest_is_listed_last_with_its_fault(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    folder = write_checkpoint(tmp_path, 2)
    (folder / "manifest.json").write_text("{")

    assert tags(tmp_path) == ["global_step1", "global_step2"]
    assert entries(tmp_path)[1].fault == "manifest.json: it cannot be read"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5)
    assert free_name(tmp_path, "global_step5") == "global_step5.2"

    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        commit(tmp_path / "partial", tmp_path / "global_step5")


def test_the_first_run_owns_the_folder_and_keeps_it(tmp_path: Path) -> None:
    root = tmp_path / "new" / "folder"

    assert claim(root, "first") == "first"
    assert claim(root, "second") == "first"
    assert claim(root, "first") == "first"
    assert not list(root.glob(".*"))


def test_of_many_runs_at_once_one_owns_the_folder(tmp_path: Path) -> None:
    owners: list[str] = []
    threads = [
        threading.Thread(target=lambda run=f"run{number}": owners.append(claim(tmp_path, run)))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(owners) == 8
    assert len(set(owners)) == 1


def test_what_a_dead_save_of_the_run_left_is_found(tmp_path: Path) -> None:
    ours = tmp_path / partial_name("global_step2", "run", "session")
    ours.mkdir()
    (tmp_path / partial_name("global_step2", "other", "session")).mkdir()

    assert leftovers(tmp_path, "run") == [ours]


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "gone"),
    [(None, None, []), (2, None, [3, 2, 1]), (1, 2, [3, 1]), (9, None, []), (3, 100, [2, 1])],
)
def test_retention(tmp_path: Path, keep_last: int | None, keep_every: int | None, gone: list[int]) -> None:
    for step in range(1, 6):
        write_checkpoint(tmp_path, step)

    going = to_prune(entries(tmp_path), keep_last=keep_last, keep_every=keep_every)

    assert [entry.tag for entry in going] == [f"global_step{step}" for step in gone]


def test_a_damaged_checkpoint_neither_counts_nor_goes(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step)
    (tmp_path / "global_step3" / "manifest.json").write_text("{")

    assert [e.tag for e in to_prune(entries(tmp_path), keep_last=1, keep_every=None)] == ["global_step1"]


def test_a_half_removed_checkpoint_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path, 1)

    def dies(_: Path) -> None:
        raise OSError("killed")

    monkeypatch.setattr(shutil, "rmtree", dies)
    with pytest.raises(OSError, match="killed"):
        remove(folder)

    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    "tag", ["", ".", "..", "a/b", ".hidden", "latest", "owner.json", "a b", "a\n", "$(x)"]
)
def test_a_tag_that_cannot_name_a_folder_is_refused(tag: str) -> None:
    with pytest.raises(BadInput, match="a tag is the name of a folder"):
        check_tag(tag)


def test_what_was_saved_after_going_back_is_spared_though_later_steps_are_there(tmp_path: Path) -> None:
    for step in (1, 2, 8, 9):
        write_checkpoint(tmp_path, step)

    going = to_prune(entries(tmp_path), keep_last=1, keep_every=None, spare=["global_step2", None])

    assert [entry.tag for entry in going] == ["global_step8", "global_step1"]
