from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.fleet import wheel

ROOT = Path(__file__).parents[4]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    for path in wheel.source_files(ROOT):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return copy


def test_equal_sources_give_an_equal_wheel_and_the_second_call_builds_nothing(
    checkout: Path, tmp_path: Path
) -> None:
    first = wheel.build(checkout, cache=tmp_path / "a", environment=os.environ)
    again = wheel.build(checkout, cache=tmp_path / "a", environment=os.environ)
    elsewhere = wheel.build(checkout, cache=tmp_path / "b", environment=os.environ)

    assert first.built
    assert not again.built
    assert first.sha256 == again.sha256 == elsewhere.sha256


def test_a_deleted_module_leaves_the_wheel(checkout: Path, tmp_path: Path) -> None:
    extra = checkout / "runtime" / "gone_tomorrow.py"
    extra.write_text("")
    before = wheel.build(checkout, cache=tmp_path / "cache", environment=os.environ)
    extra.unlink()

    after = wheel.build(checkout, cache=tmp_path / "cache", environment=os.environ)

    assert "runtime/gone_tomorrow.py" in zipfile.ZipFile(before.path).namelist()
    assert "runtime/gone_tomorrow.py" not in zipfile.ZipFile(after.path).namelist()
    assert list(checkout.glob("build")) == []


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no pyproject\.toml"):
        wheel.source_files(tmp_path)
