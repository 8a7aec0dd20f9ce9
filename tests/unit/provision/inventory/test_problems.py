"""Every fault of an inventory is found, alone, with words that name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provision.inventory.problems import Host, Problem, Site, problems
from provision.inventory.variables import OLDEST, Option, installer_fault, installers_in, sources_and_locks

ROOT = Path(__file__).parents[4]
ROLES = ROOT / "playbooks" / "roles"
INSTALLERS = installers_in((ROOT / "envs" / "miniconda_installers.tsv").read_text())
CASES = yaml.safe_load((ROOT / "tests" / "cases" / "inventory" / "cases.yml").read_text())


def options() -> dict[str, Option]:
    """What the roles of this repository take, and one role that fetches a file and runs it."""
    found = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        (entry,) = yaml.safe_load(path.read_text())["argument_specs"].values()
        spec = entry.get("options", {})
        for name, option in spec.items():
            found[name] = Option(name=name, role=path.parts[-3], type=option["type"])
    for name in ("fetched_installer_source", "fetched_installer_sha256"):
        found[name] = Option(name=name, role="fetched", type="str")
    return found


def host(name: str, variables: dict[str, Any]) -> Host:
    values = {"cluster_address": variables.get("ansible_host", name), **variables}
    return Host(name=name, set_names=frozenset(variables), values=values)


def site(case: dict[str, Any]) -> Site:
    roles = frozenset(path.name for path in ROLES.iterdir())
    return Site(
        hosts=[host(name, variables) for name, variables in case["hosts"].items()],
        groups=frozenset(case.get("groups", roles)),
        roles=roles,
        options=options(),
        texts=case.get("texts", {}),
        installers=INSTALLERS,
    )


@pytest.mark.parametrize("name", CASES)
def test_an_inventory_has_exactly_the_problem_that_it_was_given(name: str) -> None:
    case = CASES[name]

    found = problems(site(case))

    assert len(found) == bool(case["expect"]), [str(problem) for problem in found]
    for words in case["expect"]:
        assert words in str(found[0])


def test_all_problems_are_listed_at_once() -> None:
    case = {"hosts": {"te_1": {"ansible_host": "10.77.0.11"}, "te2": {"ansible_host": "10.77.0.11"}}}

    found = problems(site(case))

    assert len(found) == 2


def test_a_problem_says_the_file_and_the_line() -> None:
    text = "---\n# ssh_trsut_user is wrong\nssh_trsut_user: root\n"
    case = {
        "hosts": {"te1": {"ansible_host": "10.77.0.11", "ssh_trsut_user": "root"}},
        "texts": {"group_vars/all.yml": text},
    }

    found = problems(site(case))

    assert found == [
        Problem(
            what="no role takes the variable ssh_trsut_user",
            where="group_vars/all.yml:3",
            fix="Did you mean ssh_trust_user?",
        )
    ]


def test_sources_are_addresses_and_locks_are_files_each_once() -> None:
    values = {"a_source": "http://10.77.0.1/x", "b_source": "", "c_source": "/a/path", "d_lock": "/x.lock"}

    sources, locks = sources_and_locks([values, values])

    assert sources == [("a_source", "http://10.77.0.1/x")]
    assert locks == [("d_lock", "/x.lock")]


def test_each_published_installer_that_our_locks_need_not_fear_is_taken_and_each_older_one_named() -> None:
    refused = [
        installer.conda
        for sha256, installer in INSTALLERS.items()
        if installer_fault("", sha256, architecture=installer.architecture, known=INSTALLERS)
    ]

    assert len(INSTALLERS) == 142
    assert len(refused) == 30
    assert max(refused, key=lambda conda: [int(part) for part in conda.split(".")]) == "24.7.1"
    assert OLDEST == "24.9"
