"""The program that looks for one machine's traces in an image, on trees of a few files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "playbooks" / "roles"
SCRIPT = ROLES / "image_cleanup" / "files" / "image_tree.py"
DIGEST = ROLES / "conda_env" / "files" / "environment_digest.py"
CASES = ROOT / "tests" / "cases" / "image"
SPOILT: dict[str, dict[str, Any]] = yaml.safe_load((CASES / "spoilt.yml").read_text())
CLEAN: dict[str, str] = yaml.safe_load((CASES / "clean.yml").read_text())["files"]


class Tree:
    """A system disk and a data disk."""

    def __init__(self, folder: Path, files: dict[str, str], image: dict[str, str] | None = None) -> None:
        self.root, self.data = folder / "root", folder / "data disk"
        (self.root / "data").mkdir(parents=True)
        self.data.mkdir()
        manifest = json.dumps({"image": {"id": "te1-1", **(image or {})}})
        for path, text in {**files, "etc/clusterwright/image.json": manifest}.items():
            place = self.place(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def place(self, path: str) -> Path:
        return self.data / path.removeprefix("data/") if path.startswith("data/") else self.root / path

    def run(self, action: str, *words: str | Path) -> Any:
        finished = subprocess.run(
            [sys.executable, "-I", SCRIPT, action, "--root", self.root, "--data", self.data, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode in (0, 1), finished.stderr
        found = json.loads(finished.stdout)
        assert action == "clean" or finished.returncode == bool(found)
        return found

    def files(self) -> dict[str, str]:
        found = {str(path.relative_to(self.root)): path for path in self.root.rglob("*")}
        found |= {f"data/{path.relative_to(self.data)}": path for path in self.data.rglob("*")}
        del found["etc/clusterwright/image.json"]
        return {name: path.read_text() for name, path in sorted(found.items()) if path.is_file()}


@pytest.mark.parametrize("name", SPOILT)
def test_what_spoils_an_image_is_named(name: str, tmp_path: Path) -> None:
    case = SPOILT[name]

    found = Tree(tmp_path, {**CLEAN, **case["files"]}).run("scan")

    assert case["finding"] in [[one["rule"], one["path"]] for one in found]
    assert {one["mended"] for one in found} == {"cleaned" in case}
    assert {one["path"] for one in found} == set(case["files"])


@pytest.mark.parametrize("name", SPOILT)
def test_cleaning_mends_it_or_leaves_it_to_a_person(name: str, tmp_path: Path) -> None:
    case = SPOILT[name]
    tree = Tree(tmp_path, case["files"])

    tree.run("clean")

    assert tree.files() == case.get("cleaned", case["files"])
    assert bool(tree.run("scan")) == ("cleaned" not in case)


def test_what_an_image_may_hold_is_not_named_and_not_touched(tmp_path: Path) -> None:
    tree = Tree(tmp_path, CLEAN)

    tree.run("clean")

    assert tree.run("scan") == []
    assert tree.files() == CLEAN


def test_every_rule_has_a_case_that_breaks_it() -> None:
    rules = set(re.findall(r'^    \(\s*"([a-z-]+)",', SCRIPT.read_text(), re.MULTILINE))

    assert {case["finding"][0] for case in SPOILT.values()} == rules


def test_what_makes_the_machine_itself_is_kept_and_an_older_archive_is_not_replaced(tmp_path: Path) -> None:
    files = {
        "etc/machine-id": "b08d",
        "root/.ssh/authorized_keys": "ssh-ed25519 A",
        "data/.netrc": "x",
        "tmp/y": "y",
        "var/log/z": "z",
    }
    tree, keep = Tree(tmp_path, files), tmp_path / "kept.tar"

    tree.run("clean", "--keep", keep)
    first = keep.read_bytes()
    tree.run("clean", "--keep", keep)

    with tarfile.open(keep) as archive:
        assert archive.getnames() == ["data/.netrc", "etc/machine-id", "root/.ssh/authorized_keys"]
    assert keep.read_bytes() == first
    assert keep.stat().st_mode & 0o777 == 0o600


def test_an_image_without_a_manifest_is_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {})
    tree.place("etc/clusterwright/image.json").unlink()

    assert tree.run("scan") == [
        {
            "rule": "manifest",
            "path": "etc/clusterwright/image.json",
            "found": "there is none",
            "mended": False,
        }
    ]


def with_environment(folder: Path, **image: str) -> tuple[Tree, Path, str]:
    tree = Tree(folder, {"data/miniconda3/envs/llm/lib/module.py": "a = 1\n"}, image)
    prefix = tree.place("data/miniconda3/envs/llm")
    words = [sys.executable, DIGEST, "--prefix", prefix, "--record", "--built-from", "locks"]
    recorded = subprocess.run(words, capture_output=True, text=True, check=True)
    return tree, prefix, json.loads(recorded.stdout)["digest"]


def test_an_environment_with_one_changed_file_is_named_with_that_file(tmp_path: Path) -> None:
    tree, prefix, _ = with_environment(tmp_path)
    before = tree.run("scan", "--digest-script", DIGEST)
    (prefix / "lib" / "module.py").write_text("a = 2\n")

    after = tree.run("scan", "--digest-script", DIGEST)

    assert before == []
    assert [(one["rule"], one["found"]) for one in after] == [("environment", "changed lib/module.py")]


def test_another_environment_than_the_manifests_is_named(tmp_path: Path) -> None:
    tree, _, _ = with_environment(tmp_path, environment_name="llm", environment="0123456789abcdef")

    (found,) = tree.run("scan", "--digest-script", DIGEST)

    assert "the manifest says 0123456789ab" in found["found"]
