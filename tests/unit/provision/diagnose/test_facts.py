from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from provision.diagnose.facts import NodeFacts, judge
from tests.conftest import RecordRefusal

ADDRESSES = {"te1": "10.0.0.1", "te2": "10.0.0.2", "te3": "10.0.0.3"}


def node(name: str, **changes: Any) -> NodeFacts:
    well = NodeFacts(
        name=name,
        address=ADDRESSES[name],
        names=ADDRESSES,
        own=[ADDRESSES[name]],
        mtu=1500,
        open_files=16384,
        free={"/": 50 << 30, "/data": 9 << 30, "/dev/shm": 4 << 30},
        skew_seconds=0.2,
        skew_within_seconds=0.4,
        versions={"torch": "2.13.0", "environment digest": "a" * 64},
        job_interface="eth0",
        interface="eth0",
    )
    return replace(well, **changes)


def test_healthy_nodes_are_left_alone() -> None:
    assert judge([node("te1"), node("te2"), node("te3")], unreachable={}) == []


def test_a_site_of_which_no_node_answers_is_told() -> None:
    (found,) = judge([], unreachable={"te1": "timed out"})

    assert (found.row, found.where, found.evidence) == ("unreachable", "te1", "timed out")


@pytest.mark.parametrize(
    ("changes", "row", "says"),
    [
        ({"names": {**ADDRESSES, "te2": "127.0.1.1"}}, "loopback-name", "te2 is 127.0.1.1 there"),
        ({"names": {**ADDRESSES, "te3": "10.0.0.9"}}, "wrong-name", "te3 is 10.0.0.9 there, and 10.0.0.3"),
        ({"names": {**ADDRESSES, "te3": ""}}, "wrong-name", "te3 is unknown there"),
        ({"open_files": 256}, "files-open", "256 files"),
        ({"free": {"/data": 1 << 20}}, "disk-full", "/data has 1 MiB"),
        ({"free": {"/dev/shm": 64 << 20}}, "shared-memory", "/dev/shm has 64 MiB"),
        ({"skew_seconds": -3600.0}, "clock-skew", "-3600.0 s off (within 0.4 s)"),
        ({"job_interface": "docker0"}, "wrong-interface", "jobs use docker0; 10.0.0.2 is on eth0"),
        ({"mtu": 9000}, "odd-node", "MTU differs: 9000 against 1500"),
        ({"versions": {"torch": "2.5.0"}}, "odd-node", "torch differs: 2.5.0 against 2.13.0"),
    ],
)
def test_the_node_at_fault_is_named_and_no_other(changes: dict[str, Any], row: str, says: str) -> None:
    found = judge([node("te1"), node("te2", **changes), node("te3")], unreachable={})

    assert {one.where for one in found} == {"te2"}
    assert row in {one.row for one in found}
    assert any(says in one.evidence for one in found)


def test_without_a_majority_every_node_is_named() -> None:
    found = judge([node("te1"), node("te2", mtu=9000)], unreachable={})

    assert [one.where for one in found] == ["te1", "te2"]


def test_a_clock_within_the_uncertainty_of_the_question_is_no_fault() -> None:
    assert judge([node("te1", skew_seconds=2.0, skew_within_seconds=1.5)], unreachable={}) == []


def test_a_silent_node_is_named_with_what_ssh_said() -> None:
    (found,) = judge([node("te1", names={"te1": "10.0.0.1"})], unreachable={"te2": "timed out"})

    assert (found.row, found.where, found.evidence) == ("unreachable", "te2", "timed out")


@pytest.mark.attack("node")
def test_a_node_begins_no_line_of_another_and_its_words_are_no_command(record_refusal: RecordRefusal) -> None:
    forged = "ended with status 1\ncause all\nte2: formatted"
    found = judge([node("te1", free={"/x;id": 1})], unreachable={"te3": forged})

    record_refusal(found[0].evidence)
    assert found[0].evidence == "ended with status 1 / cause all / te2: formatted"
    assert [one.check for one in found[1:]] == ["df -h '/x;id'"]
