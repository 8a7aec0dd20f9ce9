"""A job's files are private when they appear, not a moment later."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.edges import private_files
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
    private_files.make_job_folders(tmp_path / "jobs" / "j1")

    record_refusal(f"the job's folder has mode {mode(tmp_path / 'jobs' / 'j1')}")
    assert (mode(tmp_path / "jobs" / "j1"), mode(tmp_path / "jobs" / "j1" / "logs")) == ("0700", "0700")
    assert mode(tmp_path / "jobs") == "0775"


def test_folders_that_somebody_chose_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine" / "logs").mkdir(parents=True)
    (tmp_path / "mine").chmod(0o775)
    (tmp_path / "mine" / "logs").chmod(0o755)

    private_files.make_job_folders(tmp_path / "mine")

    assert (mode(tmp_path / "mine"), mode(tmp_path / "mine" / "logs")) == ("0775", "0755")


@pytest.mark.parametrize("usual", [0o755, 0o1777, 0o2775, 0o750])
def test_a_job_s_folder_may_lie_where_people_have_theirs(tmp_path: Path, usual: int) -> None:
    """A home, a folder as /tmp, that of a project's group, that of site.yml; behind a link of ours, too."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(usual)
    (tmp_path / "link").symlink_to("absent/../shared/../shared")
    (tmp_path / "absent").mkdir(mode=0o700)

    private_files.make_job_folders(tmp_path / "link" / "jobs" / "j1")

    assert mode(tmp_path / "shared" / "jobs" / "j1" / "logs")[1:] == "700"
    assert mode(tmp_path / "shared") == f"{usual:04o}"


@pytest.mark.attack("user")
@pytest.mark.parametrize("where", ["jobs/j1", "jobs", "link to jobs"])
def test_no_job_lies_where_everybody_can_put_another_folder_in_its_place(
    tmp_path: Path, where: str, record_refusal: RecordRefusal
) -> None:
    (tmp_path / "jobs" / "j1").mkdir(mode=0o700, parents=True)
    (tmp_path / "jobs").chmod(0o755)
    (tmp_path / "link to jobs").symlink_to(tmp_path / "jobs")
    (tmp_path / where).chmod(0o777)
    asked = tmp_path / ("link to jobs" if where.startswith("link") else "jobs") / "j1"

    with pytest.raises(BadInput, match="has mode 0777: everybody can replace what is in it") as refusal:
        private_files.make_job_folders(asked)

    record_refusal(refusal.value)
    assert not any((tmp_path / "jobs" / "j1").iterdir())


@pytest.mark.attack("user")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user")
@pytest.mark.parametrize("given", ["jobs/j1", "jobs", "as tmp/link"])
def test_no_job_lies_in_a_folder_or_behind_a_link_of_a_stranger(
    tmp_path: Path, given: str, record_refusal: RecordRefusal
) -> None:
    (tmp_path / "jobs" / "j1").mkdir(mode=0o700, parents=True)
    (tmp_path / "jobs").chmod(0o1755)
    (tmp_path / "as tmp").mkdir()
    (tmp_path / "as tmp").chmod(0o1777)
    (tmp_path / "as tmp" / "link").symlink_to(tmp_path / "jobs")
    os.chown(tmp_path / given, 65534, 65534, follow_symlinks=False)
    asked = tmp_path / ("as tmp/link/j1" if given == "as tmp/link" else "jobs/j1")

    with pytest.raises(BadInput, match=f"{given} belongs to user 65534, who can replace") as refusal:
        private_files.make_job_folders(asked)

    record_refusal(refusal.value)
    assert not any((tmp_path / "jobs" / "j1").iterdir())


@pytest.mark.attack("user")
@pytest.mark.skipif(os.geteuid() != 0, reason="a stranger makes a folder")
def test_who_makes_the_job_s_folder_first_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_refusal: RecordRefusal
) -> None:
    """In a folder as /tmp, between our look and our mkdir."""
    tmp_path.chmod(0o1777)
    mkdir = Path.mkdir

    def late(path: Path, mode: int = 0o777, *, exist_ok: bool = False) -> None:
        mkdir(path, 0o777)
        os.chown(path, 65534, 65534)
        mkdir(path, mode, exist_ok=exist_ok)

    monkeypatch.setattr(Path, "mkdir", late)
    with pytest.raises(BadInput, match="jobs belongs to user 65534") as refusal:
        private_files.make_job_folder(tmp_path / "jobs")

    record_refusal(refusal.value)


@pytest.mark.attack("user")
@pytest.mark.parametrize("open_to", [0o777, 0o775, 0o702])
def test_logs_into_which_others_write_are_refused_and_not_changed(
    tmp_path: Path, open_to: int, record_refusal: RecordRefusal
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(open_to)

    with pytest.raises(BadInput, match=f"its mode {open_to:04o} lets others write there") as refusal:
        private_files.make_job_folders(tmp_path)

    record_refusal(refusal.value)
    assert mode(tmp_path / "logs") == f"{open_to:04o}"


@pytest.mark.attack("user")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_root_writes_no_logs_into_the_folder_of_a_user(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    (tmp_path / "logs").mkdir(mode=0o700)
    os.chown(tmp_path / "logs", 65534, 65534)

    with pytest.raises(BadInput, match="belongs to user 65534") as refusal:
        private_files.make_job_folders(tmp_path)

    record_refusal(refusal.value)


@pytest.mark.attack("user")
def test_logs_that_lead_elsewhere_are_refused(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").symlink_to("elsewhere")

    with pytest.raises(BadInput, match=r"logs: it is there already") as refusal:
        private_files.make_job_folders(tmp_path)

    record_refusal(refusal.value)
    assert mode(tmp_path / "elsewhere") == "0777"


def test_a_file_is_private_before_it_has_content(tmp_path: Path) -> None:
    descriptor = private_files.create(tmp_path / "log")

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
        (tmp_path / f".job.json.{os.getpid()}").symlink_to(kept)
    else:
        path.hardlink_to(kept)

    private_files.write(path, "new")

    record_refusal(f"what was planted holds {kept.read_text()!r}, and job.json has mode {mode(path)}")
    assert (path.read_text(), mode(path), kept.read_text()) == ("new", "0600", "as before")


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "smoke.json"
    path.write_text("before")

    with pytest.raises(UnicodeEncodeError):
        private_files.write(path, "\udcff", 0o644)

    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("smoke.json", "before")]
