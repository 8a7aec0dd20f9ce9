"""Whether an environment is what role conda_env wrote of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.probes.environment import Environment, compared

SCRIPT = Path(__file__).parents[4] / "playbooks" / "roles" / "conda_env" / "files" / "environment_digest.py"
PACKAGES = Path("lib") / "python3.11" / "site-packages"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment that was recorded, and described beside it in `etc`."""
    path = tmp_path / "llm"
    (path / PACKAGES / "rich-14.dist-info").mkdir(parents=True)
    (path / PACKAGES / "rich-14.dist-info" / "METADATA").write_text("Name: rich")
    (path / PACKAGES / "rich.py").write_text("")
    words = [sys.executable, SCRIPT, "--prefix", path, "--record", "--built-from", "locks"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    (tmp_path / "etc").mkdir()
    told = {"name": "llm", "prefix": str(path), "digest": json.loads(said)["digest"]}
    (tmp_path / "etc" / "environment.json").write_text(json.dumps(told))
    return path


def look(prefix: Path, script: Path = SCRIPT) -> Environment:
    return compared(prefix.parent / "etc", script=script)


def test_one_that_is_as_it_was_recorded_has_the_digest_that_was_written(prefix: Path) -> None:
    (prefix / PACKAGES / "rich.py").touch()  # the same bytes

    found = look(prefix)

    assert (len(found.digest), found.changed) == (64, "")


def test_packages_that_changed_are_named_first(prefix: Path) -> None:
    before = look(prefix).digest
    (prefix / PACKAGES / "six-1.17.0.dist-info").mkdir()
    (prefix / PACKAGES / "six-1.17.0.dist-info" / "METADATA").write_text("Name: six")
    (prefix / PACKAGES / "rich-14.dist-info" / "METADATA").unlink()
    (prefix / PACKAGES / "rich-14.dist-info").rmdir()

    found = look(prefix)

    assert found.digest != before
    assert found.changed == "six 1.17.0 was installed, rich 14 was removed"


def test_files_are_named_where_no_package_changed(prefix: Path) -> None:
    (prefix / PACKAGES / "rich.py").write_text("edited")
    for number in range(4):
        (prefix / "lib" / f"new{number}").write_text("")

    assert look(prefix).changed == "extra lib/new0, extra lib/new1, extra lib/new2, and 2 more"


def test_one_that_cannot_be_compared_has_no_digest(prefix: Path) -> None:
    (prefix / ".clusterwright" / "record.json").write_text("[]")

    found = look(prefix)

    assert found.digest == ""
    assert found.changed.startswith("its files cannot be compared (AttributeError")


def test_where_there_is_nothing_to_compare_with_what_was_written_counts(prefix: Path, tmp_path: Path) -> None:
    written = json.loads((tmp_path / "etc" / "environment.json").read_text())["digest"]

    assert look(prefix, script=tmp_path / "none") == Environment(digest=written)
    for text in ("", "[]", "[" * 100_000, '{"digest": ""}'):
        (tmp_path / "etc" / "environment.json").write_text(text)
        assert look(prefix) == Environment(digest="")
