"""Whatever a site leaves: nothing speaks against it, or a problem names the role and a way on."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import yaml

from provision.inventory.left_roles import VARIABLE, left_role_faults
from provision.inventory.variables import Fault

ROOT = Path(__file__).parents[4]
ROLES = frozenset(path.name for path in (ROOT / "playbooks" / "roles").iterdir())
NEVER = {"cluster", "node_access", "environment_kind", "job_user", "image_cleanup"}
BROUGHT = frozenset({"conda_env_conda", "cluster_environment_prefix"})
LEFT = [(role,) for role in sorted(ROLES)] + list(combinations(sorted(ROLES), 2))


def faults(left: tuple[str, ...], brought: frozenset[str] = frozenset()) -> list[Fault]:
    names = frozenset({VARIABLE}) | brought
    return list(left_role_faults({"te1": (names, {VARIABLE: list(left)})}, ROLES))


@pytest.mark.parametrize("left", LEFT, ids=lambda left: "-".join(left))
def test_one_role_or_two_can_be_left_or_each_problem_names_its_role_and_a_way_on(
    left: tuple[str, ...],
) -> None:
    for fault in faults(left):
        assert any(f"lists {role}" in fault.what for role in left)
        assert fault.fix


@pytest.mark.parametrize("left", LEFT, ids=lambda left: "-".join(left))
def test_who_does_what_the_problems_say_has_none_left(left: tuple[str, ...]) -> None:
    wanted = tuple(role for role in left if role not in NEVER)
    while needed := [f.fix for f in faults(wanted, BROUGHT) if "without which" in f.what]:
        wanted = tuple(yaml.safe_load(needed[0].partition(f"{VARIABLE}: ")[2]))

    assert faults(wanted, BROUGHT) == []


def test_what_an_image_is_made_of_leaves_the_same_roles() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "image.yml").read_text())
    (roles,) = [play["roles"] for play in plays if "roles" in play]

    for role in roles:
        expected = None if role["role"] in NEVER else f"'{role['role']}' in group_names"
        assert role.get("when") == expected


def test_members_get_nothing_of_a_role_that_is_left() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "members.yml").read_text())
    tasks = [task for play in plays for task in play.get("tasks", [])]
    imported = [task for task in tasks if "ansible.builtin.import_role" in task]
    (write,) = [task["write_files"]["files"] for task in tasks if "write_files" in task]

    for task in imported:
        role = task["ansible.builtin.import_role"]["name"]
        assert task["when"] == f"'{role}' in group_names"
        assert f"({role}_members if '{role}' in group_names else [])" in write
