"""A machine is not taken out of another cluster unasked, and one of a cluster that is gone can be had."""

from __future__ import annotations

import json

import pytest

from provision.roles.other_cluster import refusal


def asked(name: str, *members: str, former: str = "") -> str:
    answer = ["welcome to te1", "python True root True", f"cluster {json.dumps([name, members])}"]
    return refusal(answer, name="ours", nodes=["te1", "te3"], former=former)


def test_a_node_of_another_cluster_is_named_with_how_to_go_on() -> None:
    said = asked("theirs", "te1", "te2")

    assert (
        "a node of the cluster theirs, by its record, together with te2, which this inventory does not"
        in said
    )
    assert "provision node remove" in said
    assert said.endswith("cluster_former_name: theirs")


@pytest.mark.parametrize(
    ("name", "members", "former"),
    [
        ("ours", ["te1", "te2"], ""),  # a line of the inventory was taken out by hand
        ("before", ["te1", "te3"], ""),  # the cluster has another name now
        ("theirs", ["te1", "te2"], "theirs"),
        ("", ["te1", "te2"], ""),
    ],
)
def test_a_node_of_this_cluster_or_of_none_is_taken(name: str, members: list[str], former: str) -> None:
    assert asked(name, *members, former=former) == ""


@pytest.mark.parametrize(
    "line",
    [
        "cluster",
        "cluster [",
        "cluster {}",
        'cluster ["a"]',
        "cluster [[], []]",
        'cluster ["\\u001b[2J", ["x"]]',
    ],
)
def test_a_record_that_is_none_speaks_for_nobody(line: str) -> None:
    assert refusal([line], name="ours", nodes=["te1"], former="") == ""
