"""Each rule finds its fault and leaves its clean twin alone; what is no lock is refused in words."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from provision.cli import app
from provision.environments.lint.entries import Finding
from provision.environments.lint.judgement import RULES, judge
from provision.environments.lint.nodes import floors_of
from provision.environments.lint.reading import read_lock
from provision.errors import BadInput

ROOT = Path(__file__).parents[5]
CASES = ROOT / "tests" / "cases" / "env_lint"


def case(rule: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CASES / f"{rule}.yml").read_text())
    return found


def findings(path: Path, **nodes: str) -> list[Finding]:
    said = {"glibc": "", "driver": "", "compute_capability": "", **nodes}
    site = {"te1": {"cluster_architecture": said.pop("architecture", "")}}
    return judge(read_lock(path), floors_of(site, **said))


def test_each_rule_has_its_case_and_there_are_many() -> None:
    assert {path.stem for path in CASES.glob("*.yml")} == {rule.id for rule in RULES}
    assert len(RULES) >= 25


@pytest.mark.parametrize("rule", sorted(rule.id for rule in RULES))
def test_a_rule_finds_its_fault_and_not_its_clean_twin(rule: str, tmp_path: Path) -> None:
    given = case(rule)
    lock = tmp_path / given["file"]

    lock.write_text(given["bad"])
    bad = {one.rule for one in findings(lock, **given.get("nodes", {}))}
    lock.write_text(given["clean"])
    clean = findings(lock, **given.get("nodes", {}))

    assert rule in bad
    assert clean == []


@pytest.mark.parametrize("lock", sorted((ROOT / "envs").glob("*/*.lock")), ids=lambda path: path.name)
def test_our_own_locks_are_clean(lock: Path) -> None:
    assert findings(lock) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("conda-lock.yml", b"- " * 50_000),
        ("conda-lock.yml", b"[" * 50_000),
        ("conda-lock.yml", b"a: &a [1]\nb: [*a, *a]\n"),
        ("conda-lock.yml", b"version: 1\npackage: 3\n"),
        ("conda-lock.yml", b"version: 1\npackage: [{name: [x], manager: conda}]\n"),
        ("conda-lock.yml", b"version: 1\nmetadata: {channels: 3}\npackage: []\n"),
        ("conda-lock.yml", b"n: " + b"1" * 10_000),
        ("conda-lock.yml", b"? [a]\n: b\n"),
        ("conda-lock.yml", b"dependencies: [python]\n"),
        ("pylock.toml", b"lock-version = 1\npackages = 3\n"),
        ("pylock.toml", b"a = " + b"[" * 5000),
        ("uv.lock", b"version = 1\n[[package]]\nname = 3.5\nsource = 4\n"),
        ("requirements.txt", b"\x7fELF\x00\x01"),
        ("requirements.txt", b"\xff\xfe\xfd"),
        ("requirements.txt", b"\x1b]0;owned\x07 \x1b[2J\n"),
        ("requirements.txt", b""),
    ],
)
def test_what_is_no_lock_is_refused_in_words(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadInput) as refused:
        read_lock(tmp_path / name)

    assert "\x1b" not in str(refused.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "requirements.txt")

    for path in (tmp_path, tmp_path / "requirements.txt", tmp_path / "none.txt"):
        with pytest.raises(BadInput):
            read_lock(path)


def test_escapes_of_a_name_reach_no_terminal(tmp_path: Path) -> None:
    lock = tmp_path / "conda-lock.yml"
    lock.write_text(case("no-content-hash")["bad"].replace('"name": "x"', r'"name": "x\u001b[2Jy"'))

    found = findings(lock)

    assert all("\x1b" not in one.package + one.problem for one in found)


def test_the_command_says_it_by_its_status_and_as_json(tmp_path: Path) -> None:
    lock, clean, none = (tmp_path / name for name in ("requirements.txt", "clean.txt", "none.txt"))
    lock.write_text(case("no-hash")["bad"])
    clean.write_text(case("no-hash")["clean"])
    runner = CliRunner()

    bad = runner.invoke(app, ["env", "lint", str(lock), "--json"])

    assert (bad.exit_code, json.loads(bad.stdout)["findings"][0]["rule"]) == (1, "no-hash")
    assert runner.invoke(app, ["env", "lint", str(clean)]).exit_code == 0
    assert runner.invoke(app, ["env", "lint", str(clean), str(none)]).exit_code == 2


def test_five_hundred_packages_take_less_than_a_second_of_a_processor(tmp_path: Path) -> None:
    lock = tmp_path / "conda-lock.yml"
    head, _, entry = case("no-content-hash")["clean"].partition("package:\n")
    lock.write_text(head + "package:\n" + "".join(entry.replace('"x"', f'"x{n}"') for n in range(500)))

    began = time.process_time()
    found = findings(lock)

    assert time.process_time() - began < 1.0
    assert found == []
