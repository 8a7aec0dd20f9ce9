from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from conda_package_streaming.extract import extract

from provision.bundle import conda_archive
from provision.bundle.conda_archive import PLACEHOLDER, CondaIndex

INDEX = CondaIndex(name="tool", version="1.2", depends=("python >=3.11",), license="MIT")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tool-1.2-0"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "tool").write_text(f"#!{PLACEHOLDER}/bin/python3.11\n")
    (folder / "bin" / "tool").chmod(0o755)
    (folder / "bin" / "link").symlink_to("tool")
    (folder / "lib").mkdir()
    (folder / "lib" / "binary.so").write_bytes(b"\0" + PLACEHOLDER.encode())
    conda_archive.describe(folder, INDEX)
    return folder


def paths_of(tree: Path) -> dict[str, dict[str, object]]:
    entries = json.loads((tree / "info" / "paths.json").read_text())["paths"]
    return {entry.pop("_path"): entry for entry in entries}


def test_texts_that_hold_the_placeholder_are_marked_for_conda_and_binaries_are_not(tree: Path) -> None:
    paths = paths_of(tree)

    assert paths["bin/tool"]["prefix_placeholder"] == PLACEHOLDER
    assert paths["bin/tool"]["file_mode"] == "text"
    assert "prefix_placeholder" not in paths["lib/binary.so"]
    assert paths["bin/link"] == {"path_type": "softlink"}


def test_condas_own_library_unpacks_the_package_as_it_was(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    package = conda_archive.pack(tree, INDEX, tmp_path)

    extract(str(package), str(tmp_path / "out"))

    assert (tmp_path / "out" / "bin" / "tool").read_text() == (tree / "bin" / "tool").read_text()
    assert (tmp_path / "out" / "bin" / "tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "bin" / "link").readlink() == Path("tool")
    assert json.loads((tmp_path / "out" / "info" / "index.json").read_text())["depends"] == ["python >=3.11"]


def test_equal_trees_give_equal_packages(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()

    first = conda_archive.pack(tree, INDEX, tmp_path).read_bytes()
    (tree / "bin" / "tool").touch()

    assert conda_archive.pack(tree, INDEX, tmp_path / "again").read_bytes() == first


def test_a_channel_vouches_for_each_package_by_sha256(tree: Path, tmp_path: Path) -> None:
    channel = tmp_path / "conda"
    (channel / "linux-64").mkdir(parents=True)
    package = conda_archive.pack(tree, INDEX, channel / "linux-64")

    conda_archive.write_channel(channel)

    record = json.loads((channel / "linux-64" / "repodata.json").read_text())["packages.conda"][package.name]
    assert record["sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert (record["name"], record["version"], record["subdir"]) == ("tool", "1.2", "linux-64")
    assert json.loads((channel / "noarch" / "repodata.json").read_text())["packages.conda"] == {}
