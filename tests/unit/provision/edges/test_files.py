"""Files that are written while others look."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from provision.edges.files import write_file
from tests.conftest import RecordRefusal

# Before each call that opens, renames or changes a mode: the modes of the files in a folder.
WATCHED = """\
import os, sys
from pathlib import Path
from provision.edges.files import write_file
folder, modes = Path(sys.argv[1]), set()
def note(event, arguments):
    if event.startswith(("os.", "open")) and event != "os.scandir":
        modes.update(entry.stat().st_mode & 0o777 for entry in os.scandir(folder) if entry.is_file())
sys.addaudithook(note)
write_file(folder / "secret", "x", mode=0o600)
write_file(folder / "secret", "y", mode=0o600)
print(*(f"{mode:04o}" for mode in modes))
"""


@pytest.mark.attack("user")
def test_a_secret_has_its_mode_from_the_beginning(tmp_path: Path, record_refusal: RecordRefusal) -> None:
    words = [sys.executable, "-c", WATCHED, tmp_path]

    seen = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    record_refusal(f"modes that were seen: {', '.join(seen)}")
    assert seen == ["0600"]
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.attack("user")
def test_a_link_under_a_name_that_can_be_guessed_is_not_followed(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    (tmp_path / "other").write_text("theirs")
    code = f"""
import os
from pathlib import Path
from provision.edges.files import write_file
folder = Path({str(tmp_path)!r})
(folder / f".secret.{{os.getpid()}}.new").symlink_to(folder / "other")
write_file(folder / "secret", "x", mode=0o600)
"""

    subprocess.run([sys.executable, "-c", code], check=True)

    record_refusal(f"what the link leads to holds {(tmp_path / 'other').read_text()!r}")
    assert (tmp_path / "other").read_text() == "theirs"
    assert not (tmp_path / "secret").is_symlink()


def test_a_disk_that_is_full_leaves_what_was_there_and_the_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))

    try:
        with pytest.raises(OSError, match="File too large") as failed:
            write_file(path, "after")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert failed.value.filename == str(path)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("hosts.yml", "before")]
