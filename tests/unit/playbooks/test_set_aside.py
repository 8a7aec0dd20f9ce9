"""The module `set_aside` on folders of this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.playbooks.test_node_files import run_module

CLAIM = ".clusterwright/record.json"


# As conda and pip list what they are given.
CONDA_LOCK = "@EXPLICIT\nhttp://mirror/linux-64/tool-1.0-h1_0.conda#sha256:00\n"
WHEELS_LOCK = "torch==2.13.0+cpu \\\n    --hash=sha256:00\nNV.Lib==1.0 ; python_version > '3'\n"
PACKAGES = "lib/python3.11/site-packages"


def set_aside(path: Path, state: str, *, check_mode: bool = False, **options: object) -> dict[str, Any]:
    arguments = {"path": str(path), "claim": CLAIM, "state": state, **options}
    return run_module("set_aside", arguments, check_mode=check_mode)


def write(path: Path, text: str) -> str:
    """Writes a file; its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def wheel(prefix: Path, name: str, module: str) -> None:
    """As pip leaves a wheel of one module and one program."""
    packages = prefix / PACKAGES
    digests = {}
    for path, text in ((module, "code"), ("../../../bin/run", "#!"), (f"{name}.dist-info/METADATA", "M")):
        digest = bytes.fromhex(write(packages / path, text))
        digests[path] = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    record = "".join(f"{path},sha256={digest},1\n" for path, digest in digests.items())
    write(packages / f"{name}.dist-info" / "RECORD", f"{record}{name}.dist-info/RECORD,,\n")


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """An environment of ours that lacks its last steps, and what it was built from beside it."""
    prefix = tmp_path / "envs" / "llm"
    prefix.parent.mkdir()
    set_aside(prefix, "begun")
    digest = write(prefix / "bin" / "tool", "tool")
    (prefix / "bin" / "link").symlink_to("tool")
    wheel(prefix, "torch-2.13.0+cpu", "torch/__init__.py")
    wheel(prefix, "nv_lib-1.0", "nv/lib.py")
    of_conda = write(prefix / "bin" / "run", "a wheel's program as conda changed it")
    paths = [
        {"_path": "bin/tool", "sha256_in_prefix": digest},
        {"_path": "bin/link", "sha256": "0" * 64},
        {"_path": "bin/run", "sha256": "0" * 64, "sha256_in_prefix": of_conda},
    ]
    write(prefix / "conda-meta" / "tool-1.0-h1_0.json", json.dumps({"paths_data": {"paths": paths}}))
    write(prefix / "conda-meta" / "history", "")
    write(prefix / PACKAGES / "torch" / "__pycache__" / "x.pyc", "")
    write(tmp_path / "conda.txt", CONDA_LOCK)
    write(tmp_path / "wheels.txt", WHEELS_LOCK)
    return prefix


def locks(prefix: Path) -> list[str]:
    return [str(prefix.parents[1] / name) for name in ("conda.txt", "wheels.txt")]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """An environment of somebody else."""
    path = tmp_path / "envs" / "llm"
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").write_text("theirs")
    return path


def test_what_is_there_is_set_aside_and_kept_under_a_name_of_its_own(theirs: Path) -> None:
    foreseen = set_aside(theirs, "begun", check_mode=True)
    assert (theirs / "bin" / "python").exists()
    begun = set_aside(theirs, "begun")
    claims = [path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file()]
    kept = set_aside(theirs, "kept")

    assert foreseen["changed"]
    assert begun["aside"] == f"{theirs.parent}/.clusterwright-llm/previous"
    assert claims == [Path(CLAIM)]
    assert kept["aside"].startswith(f"{theirs}.before-2")
    assert Path(kept["aside"], "bin", "python").read_text() == "theirs"
    assert not set_aside(theirs, "kept")["changed"]


def test_a_build_that_fails_leaves_what_was_there(theirs: Path) -> None:
    set_aside(theirs, "begun")
    write(theirs / PACKAGES / "torch" / "partial", "ours")

    back = set_aside(theirs, "back", at_once=True)

    assert (back["put_back"], back["kept"]) == (True, "")
    assert [path.name for path in theirs.parent.iterdir()] == ["llm"]
    assert [path.name for path in theirs.iterdir()] == ["bin"]
    assert not set_aside(theirs, "back")["changed"]


def test_an_unfinished_build_of_ours_is_begun_anew_and_nothing_is_set_aside_twice(theirs: Path) -> None:
    set_aside(theirs, "begun")
    (theirs / "conda-meta").mkdir()
    (theirs / "conda-meta" / "history").touch()

    again = set_aside(theirs, "begun")

    assert (again["aside"], again["kept"]) == (f"{theirs.parent}/.clusterwright-llm/previous", "")
    assert not (theirs / "conda-meta").exists()
    (theirs / CLAIM).write_text("a person's")
    refused = set_aside(theirs, "begun")
    assert refused["failed"]
    assert ".clusterwright-llm/previous is there already" in refused["msg"]
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


def test_an_unfinished_build_goes_where_every_file_is_the_builds_own(cut_off: Path) -> None:
    back = set_aside(cut_off, "back", locks=locks(cut_off))

    assert (back["kept"], back["changed"]) == ("", True)
    assert list(cut_off.parent.iterdir()) == []


ADDED = {
    "a file": "notes.txt",
    "a file among ours": f"{PACKAGES}/torch/mine.py",
    "an edited file of a wheel": f"{PACKAGES}/nv/lib.py",
    "an edited file of conda": "bin/tool",
    "settings": "conda-meta/state",
    "a package": f"{PACKAGES}/flashy-2.1.dist-info/METADATA",
    "another version": f"{PACKAGES}/torch-9.0.dist-info/METADATA",
    "a conda package": "conda-meta/other-1-0.json",
}


@pytest.mark.parametrize("state", ["begun", "back"])
@pytest.mark.parametrize("added", ADDED.values(), ids=ADDED.keys())
def test_what_a_person_added_to_it_stays(cut_off: Path, added: str, state: str) -> None:
    write(cut_off / added, "a person's")

    done = set_aside(cut_off, state, locks=locks(cut_off))

    assert done["kept"].startswith(f"{cut_off}.before-2")
    assert done["not_ours"] == [added]
    assert Path(done["kept"], added).read_text() == "a person's"
    assert Path(done["kept"], "bin", "tool").exists()


def test_without_the_locks_nothing_of_it_is_known(cut_off: Path) -> None:
    kept = set_aside(cut_off, "back")["kept"]

    assert Path(kept, "bin", "tool").read_text() == "tool"


def test_a_wheel_that_is_half_unpacked_goes_when_the_build_has_failed_just_now(cut_off: Path) -> None:
    (cut_off / PACKAGES / "nv_lib-1.0.dist-info" / "RECORD").unlink()

    assert not set_aside(cut_off, "back", locks=locks(cut_off), at_once=True)["kept"]
    assert not cut_off.exists()


@pytest.mark.parametrize("added", ["notes.txt", ADDED["a package"], ADDED["a conda package"]])
def test_but_not_what_somebody_added_meanwhile(cut_off: Path, added: str) -> None:
    (cut_off / PACKAGES / "nv_lib-1.0.dist-info" / "RECORD").unlink()
    write(cut_off / added, "a person's")

    kept = set_aside(cut_off, "back", locks=locks(cut_off), at_once=True)["kept"]

    assert Path(kept, added).read_text() == "a person's"


STATES = ["opened", "begun", "back", "kept", "removed", "closed"]
WORKED = [f"{name}/theirs" for name in ("previous", "begun", "build", "arriving")]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", ["a folder", "a folder that says it is ours", "a link", "a file"])
def test_what_somebody_else_has_under_our_hidden_name_is_left_or_refused(
    theirs: Path, state: str, what: str
) -> None:
    hidden = theirs.with_name(".clusterwright-llm")
    place = theirs.with_name("elsewhere") if what == "a link" else hidden
    for name in WORKED if what != "a file" else []:
        write(place / name, "theirs")
    if what == "a link":
        set_aside(theirs.with_name("other"), "opened")
        shutil.copy(theirs.with_name(".clusterwright-other") / "clusterwright", place)
        hidden.symlink_to(place)
    elif what == "a file":
        hidden.write_text("theirs")
    elif what != "a folder":
        (place / "clusterwright").write_text("Made by Clusterwright, by hand\n")

    done = set_aside(theirs, state)

    if state in ("opened", "begun"):
        assert f"{hidden} is there already, and not ours: move it to another name yourself" in done["msg"]
    else:
        assert not done["changed"]
    assert (theirs / "bin" / "python").read_text() == "theirs"
    assert all((place / name).read_text() == "theirs" for name in WORKED if what != "a file")
    assert hidden.is_symlink() == (what == "a link")


def test_what_a_person_put_into_our_own_working_folder_stays(theirs: Path) -> None:
    set_aside(theirs, "opened")
    hidden = theirs.with_name(".clusterwright-llm")
    write(hidden / "notes", "theirs")
    write(hidden / "begun" / "notes", "theirs")

    refused = set_aside(theirs, "begun")
    set_aside(theirs, "back")

    assert f"{hidden}/begun holds notes, which is not ours" in refused["msg"]
    assert (hidden / "notes").read_text() == (hidden / "begun" / "notes").read_text() == "theirs"
    assert (theirs / "bin" / "python").read_text() == "theirs"
    assert not set_aside(theirs, "back")["changed"]


def test_no_build_is_begun_through_a_link_in_our_own_working_folder(theirs: Path) -> None:
    set_aside(theirs, "opened")
    begun = theirs.with_name(".clusterwright-llm") / "begun"
    elsewhere = theirs.with_name("elsewhere")
    elsewhere.mkdir()
    begun.symlink_to(elsewhere)

    refused = set_aside(theirs, "begun")
    set_aside(theirs, "back")

    assert f"{begun} is no folder of ours: move it to another name yourself" in refused["msg"]
    assert begun.readlink() == elsewhere
    assert list(elsewhere.iterdir()) == []
    assert (theirs / "bin" / "python").read_text() == "theirs"


def test_room_for_a_build_is_made_once_and_goes_with_it(theirs: Path) -> None:
    foreseen = set_aside(theirs, "opened", check_mode=True)
    there = [path.name for path in theirs.parent.iterdir()]
    made, again = set_aside(theirs, "opened"), set_aside(theirs, "opened")
    write(theirs.with_name(".clusterwright-llm") / "build" / "download", "ours")
    closed, at_rest = set_aside(theirs, "closed"), set_aside(theirs, "closed")

    assert (foreseen["changed"], there) == (True, ["llm"])
    assert [run["changed"] for run in (made, again, closed, at_rest)] == [True, False, True, False]
    assert [path.name for path in theirs.parent.iterdir()] == ["llm"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_a_process_runs_from_is_not_moved(theirs: Path, check_mode: bool) -> None:
    program = theirs / "bin" / "sleep"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen(["job", "60"], executable=program) as job:
        refused = set_aside(theirs, "begun", check_mode=check_mode)
        job.kill()

    assert f"processes run from {theirs}" in refused["msg"]
    assert f"{job.pid} (job 60)" in refused["msg"]
    assert (theirs / "bin" / "python").read_text() == "theirs"


def test_what_a_process_still_runs_from_is_kept_and_not_deleted(theirs: Path) -> None:
    set_aside(theirs, "begun")
    program = theirs.with_name(".clusterwright-llm") / "previous" / "bin" / "sleep"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen(["job", "60"], executable=program) as job:
        kept = set_aside(theirs, "removed")["aside"]
        job.kill()

    assert Path(kept, "bin", "python").read_text() == "theirs"
