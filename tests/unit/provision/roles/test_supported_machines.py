"""Machines that no role is written for are refused by name, all at once; the list is one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.roles.supported_machines import in_words, refusals

ROOT = Path(__file__).parents[4]
ROLES = ROOT / "playbooks" / "roles"
RELEASES = yaml.safe_load((ROLES / "cluster" / "vars" / "main.yml").read_text())["cluster_supported_releases"]
CASES = yaml.safe_load((ROOT / "tests" / "cases" / "machines" / "releases.yml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_machine_is_taken_or_refused_with_what_it_is(case: dict[str, Any]) -> None:
    answer = ["python True root True", *case["says"].splitlines()]

    found = refusals({"te1": answer}, releases=RELEASES, architecture=case.get("locks", "x86_64"))

    assert len(found) == len(case["refused"])
    for words, reason in zip(case["refused"], found, strict=True):
        assert reason.startswith("te1: ")
        assert words in reason


def test_all_machines_are_named_at_once_and_those_that_answer_are_not() -> None:
    answers = {
        "te1": ["machine rocky 9.4 x86_64 Rocky Linux 9.4 (Blue Onyx)"],
        "te2": ["machine debian 12 x86_64 Debian GNU/Linux 12 (bookworm)"],
        "te3": ["machine ubuntu 20.04 x86_64 Ubuntu 20.04.6 LTS"],
    }

    found = refusals(answers, releases=RELEASES, architecture="x86_64")

    assert [reason.partition(":")[0] for reason in found] == ["te1", "te3"]


def test_a_login_that_failed_is_left_to_what_judges_logins() -> None:
    answers = {"te1": ["sudo: a password is required"], "te2": ["python True root True"]}

    (found,) = refusals(answers, releases=RELEASES, architecture="x86_64")

    assert found.startswith("te2: it does not say what it is")


def test_roles_name_the_releases_of_the_table_and_readme_too() -> None:
    stated = {name.capitalize(): list(known.values()) for name, known in RELEASES.items()}

    for meta in sorted(ROLES.glob("*/meta/main.yml")):
        platforms = yaml.safe_load(meta.read_text())["galaxy_info"]["platforms"]
        assert {entry["name"]: entry["versions"] for entry in platforms} == stated, meta
    assert in_words(RELEASES) in " ".join((ROOT / "README.md").read_text().split())
