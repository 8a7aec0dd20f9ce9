"""Files that are written while others look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
