"""Which folder on the way to jobs and their environment is closed to the user of jobs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "playbooks" / "roles" / "runtime" / "files" / "closed_folders.sh"
# For root no folder is closed.
SOMEBODY = ["setpriv", "--reuid", "65534", "--clear-groups", "--"] if os.geteuid() == 0 else []


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that everybody may enter, as /data is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def closed(*paths: Path) -> list[str]:
    words = [*SOMEBODY, "sh", "-c", SCRIPT.read_text(), "closed_folders", *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_first_folder_that_is_closed_is_named_and_what_is_not_there_is_none(data: Path) -> None:
    jobs, prefix = data / "jobs" / "trainer", data / "a * b" / "envs" / "llm"
    prefix.mkdir(parents=True)

    assert closed(jobs, prefix) == []

    jobs.parent.mkdir()
    for folder in (jobs.parent, data / "a * b" / "envs"):
        folder.chmod(0)
    assert closed(jobs, prefix) == [str(jobs.parent), str(data / "a * b" / "envs")]
    data.chmod(0)
    assert closed(jobs, prefix) == [str(data), str(data)]
    for folder in (data, jobs.parent, data / "a * b" / "envs"):
        folder.chmod(0o755)


def test_a_link_is_entered_where_it_leads(data: Path) -> None:
    (data / "bulk").mkdir()
    (data / "data").symlink_to("bulk")

    assert closed(data / "data" / "jobs") == []

    (data / "bulk").chmod(0)
    assert closed(data / "data" / "jobs") == [str(data / "data")]
    (data / "bulk").chmod(0o755)
