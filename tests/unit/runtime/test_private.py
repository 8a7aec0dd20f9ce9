"""A job's files are private when they appear, not a moment later."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import private
from runtime.errors import BadInput
from tests.conftest import RecordRefusal


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The one that hides nothing."""
    before = os.umask(0)
    yield
    assert os.umask(before) == 0


@pytest.mark.attack("user")
def test_a_jobs_folders_are_closed_and_their_parents_as_usual(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    private.make_job_folders(tmp_path / "jobs" / "j1")

    record_refusal(f"the job's folder has mode {mode(tmp_path / 'jobs' / 'j1')}")
    assert (mode(tmp_path / "jobs" / "j1"), mode(tmp_path / "jobs" / "j1" / "logs")) == ("0700", "0700")
    assert mode(tmp_path / "jobs") == "0777"


def test_folders_that_somebody_chose_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine" / "logs").mkdir(parents=True)
    (tmp_path / "mine" / "logs").chmod(0o755)

    private.make_job_folders(tmp_path / "mine")

    assert (mode(tmp_path / "mine"), mode(tmp_path / "mine" / "logs")) == ("0777", "0755")


@pytest.mark.attack("user")
@pytest.mark.parametrize("open_to", [0o777, 0o775, 0o702])
def test_logs_into_which_others_write_are_refused_and_not_changed(
    tmp_path: Path, open_to: int, record_refusal: RecordRefusal
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(open_to)

    with pytest.raises(BadInput, match=f"its mode {open_to:04o} lets others write there") as refusal:
        private.make_job_folders(tmp_path)

    record_refusal(refusal.value)
    assert mode(tmp_path / "logs") == f"{open_to:04o}"


@pytest.mark.attack("user")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_root_writes_no_logs_into_the_folder_of_a_user(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    (tmp_path / "logs").mkdir(mode=0o700)
    os.chown(tmp_path / "logs", 65534, 65534)

    with pytest.raises(BadInput, match="belongs to user 65534") as refusal:
        private.make_job_folders(tmp_path)

    record_refusal(refusal.value)


@pytest.mark.attack("user")
def test_logs_that_lead_elsewhere_are_refused(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").symlink_to("elsewhere")

    with pytest.raises(BadInput, match=r"logs: it is there already") as refusal:
        private.make_job_folders(tmp_path)

    record_refusal(refusal.value)
    assert mode(tmp_path / "elsewhere") == "0777"


def test_a_file_is_private_before_it_has_content(tmp_path: Path) -> None:
    descriptor = private.create(tmp_path / "log")

    assert (mode(tmp_path / "log"), os.fstat(descriptor).st_size) == ("0600", 0)
    os.close(descriptor)


@pytest.mark.attack("user")
@pytest.mark.parametrize("planted", ["link", "open file"])
def test_what_has_the_name_is_replaced_not_written_through(
    tmp_path: Path, planted: str, record_refusal: RecordRefusal
) -> None:
    kept, path = tmp_path / "kept", tmp_path / "job.json"
    kept.write_text("as before")
    if planted == "link":
        path.symlink_to(kept)
        (tmp_path / "job.json.partial").symlink_to(kept)
    else:
        path.hardlink_to(kept)

    private.write(path, "new")

    record_refusal(f"what was planted holds {kept.read_text()!r}, and job.json has mode {mode(path)}")
    assert (path.read_text(), mode(path), kept.read_text()) == ("new", "0600", "as before")
