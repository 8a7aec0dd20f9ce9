from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from provision.environments import runtime_wheel
from provision.errors import BadInput

ROOT = Path(__file__).parents[4]
OWN_FILES = ROOT / "playbooks" / "roles" / "runtime" / "files" / "own_files.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "checkout"
    for path in runtime_wheel.source_files(ROOT):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return copy


def test_equal_sources_give_an_equal_wheel_and_the_second_call_builds_nothing(
    checkout: Path, tmp_path: Path
) -> None:
    first = runtime_wheel.build(checkout, cache=tmp_path / "a", environment=os.environ)
    again = runtime_wheel.build(checkout, cache=tmp_path / "a", environment=os.environ)
    elsewhere = runtime_wheel.build(checkout, cache=tmp_path / "b", environment=os.environ)

    assert first.built
    assert not again.built
    assert first.sha256 == again.sha256 == elsewhere.sha256


def test_what_is_installed_of_it_is_held_against_the_wheel_whatever_its_record_on_a_node_says(
    tmp_path: Path,
) -> None:
    made = runtime_wheel.build(ROOT, cache=tmp_path / "cache", environment=os.environ)
    prefix = tmp_path / "env"
    packages = prefix / "lib" / "python3.11" / "site-packages"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "install",
        "--ignore-installed",
    ]
    subprocess.run(
        [*pip, "--no-deps", "--no-index", "--no-compile", "--prefix", prefix, made.path], check=True
    )
    assert own(prefix) == made.content

    (packages / "runtime" / "evil.py").write_text("")
    with next(packages.glob("clusterwright-*.dist-info/RECORD")).open("a") as record:
        record.write("runtime/evil.py,,\n")
    assert own(prefix) != made.content
    (packages / "runtime" / "evil.py").unlink()
    assert own(prefix) == made.content
    (packages / "runtime" / "cli.py").write_text("evil")
    assert own(prefix) != made.content

    (prefix / "bin" / "zerorun").write_text("edited")
    (packages / "runtime" / "mine").mkdir()
    (packages / "runtime" / "mine" / "notes.py").write_text("mine")

    kept = Path(own(prefix, "clear"))
    assert own(prefix) == ""
    assert kept.is_relative_to(prefix / ".clusterwright")
    assert {str(path.relative_to(kept)): path.read_text() for path in kept.rglob("*") if path.is_file()} == {
        "bin/zerorun": "edited",
        "runtime/cli.py": "evil",
        "runtime/mine/notes.py": "mine",
    }
    assert [path for path in prefix.rglob("*") if path.is_file() and kept not in path.parents] == []


def own(prefix: Path, *words: str) -> str:
    """As the role asks it of a node."""
    words = ("-c", OWN_FILES.read_text(), str(prefix), *words)
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout.strip()


def test_a_deleted_module_leaves_the_wheel(checkout: Path, tmp_path: Path) -> None:
    extra = checkout / "runtime" / "gone_tomorrow.py"
    extra.write_text("")
    before = runtime_wheel.build(checkout, cache=tmp_path / "cache", environment=os.environ)
    extra.unlink()

    after = runtime_wheel.build(checkout, cache=tmp_path / "cache", environment=os.environ)

    assert "runtime/gone_tomorrow.py" in zipfile.ZipFile(before.path).namelist()
    assert "runtime/gone_tomorrow.py" not in zipfile.ZipFile(after.path).namelist()
    assert list(checkout.glob("build")) == []


def test_a_node_gets_the_runtime_alone_and_an_edit_of_the_controller_does_not_change_it(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "provision" / "lab").mkdir(parents=True)
    before = runtime_wheel.build(checkout, cache=tmp_path / "cache", environment=os.environ)
    (checkout / "provision" / "lab" / "faults.py").write_text("edited")
    (checkout / "README.md").write_text("edited")

    after = runtime_wheel.build(checkout, cache=tmp_path / "cache", environment=os.environ)

    assert (after.built, after.content) == (False, before.content)
    with zipfile.ZipFile(after.path) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        [entries] = [archive.read(name).decode() for name in archive.namelist() if "entry_points" in name]
    assert sorted(name.partition("-")[0] for name in folders) == ["clusterwright", "runtime"]
    assert "zerorun" in entries
    assert "provision" not in entries


def test_the_wheel_depends_on_what_the_project_does_and_not_on_what_only_a_controller_needs(
    checkout: Path, tmp_path: Path
) -> None:
    made = runtime_wheel.build(checkout, cache=tmp_path / "a", environment=os.environ)
    project = checkout / "pyproject.toml"
    project.write_text(project.read_text().replace('"fabric>=3.2"', '"fabric>=3.3"'))

    again = runtime_wheel.build(checkout, cache=tmp_path / "b", environment=os.environ)

    assert again.content == made.content
    with zipfile.ZipFile(made.path) as archive:
        [text] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA")]
    required = {line.split(": ")[1] for line in text.splitlines() if line.startswith("Requires-Dist: ")}
    assert {"typer>=0.16", 'torch>=2.6; extra == "node"'} <= required
    assert not any("ansible" in one for one in required)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no pyproject\.toml"):
        runtime_wheel.source_files(tmp_path)
