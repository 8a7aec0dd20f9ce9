"""site.yml four times on blank nodes: check, apply, check, apply; every role changes a node once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.lab.conftest import LabUnderTest, playbook

ROOT = Path(__file__).parents[2]
PLAYS = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
# A smoke test is an event: it makes nothing true of a node, and has tests of its own.
ROLES = [play["hosts"] for play in PLAYS if "hosts" in play and play["hosts"] != "smoke_test"]
LOOKS_ONLY = {"node_access", "nvidia_gpu"}
CHECK = ("--check", "--diff")
# Everything that a role could write, by name, mode and content; and the disk that it could format.
STATE = (
    "find /etc /usr /opt /root /home /data /var/lib/dpkg -xdev -path /root/.ansible -prune -o -type f "
    "-printf '%p %m ' -exec sha256sum {} + | sha256sum; head -c 1M /dev/vdb | sha256sum; "
    "sysctl net.core.somaxconn"
)
_LINE = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(\w+) : |^changed: \[([\w.-]+)", re.MULTILINE)


def changes(output: str) -> dict[str, set[str]]:
    """The nodes that each role changed."""
    found: dict[str, set[str]] = {role: set() for role in ROLES}
    role = ""
    for named, node in _LINE.findall(output):
        role = named or role
        if node:
            found[role].add(node)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FourRuns:
    """Which nodes each role changed in each run, and the nodes' state around the first of them."""

    changed: list[dict[str, set[str]]]
    before: list[str]
    after_check: list[str]


@pytest.fixture(scope="module")
def four_runs(mirror: None, spare_lab: LabUnderTest) -> FourRuns:
    spare_lab.reset()
    before = state(spare_lab)
    foreseen = run(spare_lab, *CHECK)
    after_check = state(spare_lab)
    runs = [foreseen, run(spare_lab), run(spare_lab, *CHECK), run(spare_lab)]
    return FourRuns(changed=runs, before=before, after_check=after_check)


def run(lab: LabUnderTest, *flags: str) -> dict[str, set[str]]:
    return changes(playbook(lab, "--skip-tags", "smoke_test", *flags).stdout)


def state(lab: LabUnderTest) -> list[str]:
    return [str((lab.lab.folder / "secrets").exists()), *lab.out_of_all(STATE)]


def test_a_run_in_check_mode_changes_nothing_on_blank_nodes(four_runs: FourRuns) -> None:
    assert four_runs.after_check == four_runs.before


@pytest.mark.parametrize("role", ROLES)
def test_a_role_changes_every_node_once(role: str, four_runs: FourRuns, spare_lab: LabUnderTest) -> None:
    every = set() if role in LOOKS_ONLY else set(spare_lab.nodes)

    assert [run[role] for run in four_runs.changed] == [every, every, set(), set()]
