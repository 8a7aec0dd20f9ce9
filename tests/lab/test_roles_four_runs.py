"""site.yml four times on blank nodes: check, apply, check, apply; every role changes a node once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chapters import plays_of
from tests.lab.conftest import FourRuns, LabUnderTest, Run

ROOT = Path(__file__).parents[2]
PLAYS = plays_of(ROOT / "playbooks" / "site.yml")
# A smoke test is an event: it makes nothing true of a node, and has tests of its own.
ROLES = [play["hosts"] for play in PLAYS if "roles" in play and play["hosts"] != "smoke_test"]
LOOKS_ONLY = {"node_access", "nvidia_gpu"}
OFF = {"wireguard_mesh", "nvidia_driver"}  # unless a site asks for it
_LINE = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(\w+) : |^changed: \[([\w.-]+)", re.MULTILINE)


def changed_by(role: str, run: Run) -> set[str]:
    """The nodes that a role changed."""
    found, now = set(), ""
    for named, node in _LINE.findall(run.finished.stdout):
        now = named or now
        if node and now == role:
            found.add(node)
    return found


def test_a_run_in_check_mode_changes_nothing_on_blank_nodes(four_runs: FourRuns) -> None:
    assert four_runs.after_check == four_runs.before


@pytest.mark.parametrize("role", ROLES)
def test_a_role_changes_every_node_once(role: str, four_runs: FourRuns, site_lab: LabUnderTest) -> None:
    every = set() if role in LOOKS_ONLY | OFF else set(site_lab.nodes)
    if role == "environment_kind":  # its record is the controller's, written once for all nodes
        every = {site_lab.nodes[0]}
    runs = (four_runs.first_check, four_runs.first, four_runs.second_check, four_runs.second)

    assert [changed_by(role, run) for run in runs] == [every, every, set(), set()]
