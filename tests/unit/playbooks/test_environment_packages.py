"""Which packages of an environment are other ones than were recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.playbooks.digests import PACKAGES, digest, write


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    path = tmp_path / "envs" / "llm"
    write(path / PACKAGES / "torch" / "__init__.py", "")
    return path


def test_packages_that_were_added_are_named_whoever_installed_them(prefix: Path) -> None:
    digest(prefix, "--record", "--built-from", "locks")
    write(prefix / PACKAGES / "flashy-2.1.dist-info" / "METADATA", "Name: flashy")
    write(prefix / "conda-meta" / "ffmpeg-6-0.json", json.dumps({"name": "ffmpeg", "version": "6"}))

    report = digest(prefix)

    assert (report["added"], report["gone"]) == ({"ffmpeg": "6", "flashy": "2.1"}, {})
    assert report["digest"] != report["recorded"]


def test_packages_that_are_gone_or_replaced_are_named_with_both_versions(prefix: Path) -> None:
    for name in ("flashy-2.1", "numpy_ext-1.9"):
        write(prefix / PACKAGES / f"{name}.dist-info" / "METADATA", "Name: x")
    write(prefix / "conda-meta" / "ffmpeg-6-0.json", json.dumps({"name": "ffmpeg", "version": "6"}))
    digest(prefix, "--record", "--built-from", "locks")
    shutil.rmtree(prefix / PACKAGES / "flashy-2.1.dist-info")
    (prefix / PACKAGES / "numpy_ext-1.9.dist-info").rename(prefix / PACKAGES / "numpy_ext-2.0.dist-info")
    (prefix / "conda-meta" / "ffmpeg-6-0.json").unlink()

    report = digest(prefix)

    assert report["added"] == {"numpy-ext": "2.0"}
    assert report["gone"] == {"ffmpeg": "6", "flashy": "2.1", "numpy-ext": "1.9"}
