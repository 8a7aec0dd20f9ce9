"""Writing for a moment to a disk."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runtime.probes.disk import write_rate


@pytest.mark.parametrize("folder", ["", "/dev/shm"])
def test_writing_takes_about_the_time_asked_and_leaves_nothing(tmp_path: Path, folder: str) -> None:
    place = Path(folder) if folder else tmp_path
    before, started = sorted(place.iterdir()), time.monotonic()

    rate = write_rate(place, 0.05)

    assert rate > 0
    assert time.monotonic() - started < 60
    assert sorted(place.iterdir()) == before


def test_a_folder_that_takes_no_file_says_so() -> None:
    with pytest.raises(OSError, match="/proc/self"):
        write_rate(Path("/proc/self"), 0.05)
