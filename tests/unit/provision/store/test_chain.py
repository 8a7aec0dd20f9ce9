"""Who asks whom: nobody one who waits for him."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.store.chain import asked_by, lanes_of

NODES = [f"te{number}" for number in range(1, 9)]


def test_each_asks_the_one_before_it_and_then_those_before() -> None:
    lanes = lanes_of(NODES[:4])

    assert [asked_by(node, lanes) for node in NODES[:4]] == [
        [[]],
        [["te1"]],
        [["te2", "te1"]],
        [["te3", "te2", "te1"]],
    ]


def test_from_eight_nodes_on_halves_go_in_opposite_directions() -> None:
    lanes = lanes_of(NODES)

    assert lanes == [NODES, NODES[::-1]]
    assert [lane[:1] for lane in asked_by("te4", lanes)] == [["te3"], ["te5"]]


def test_who_has_the_tree_comes_first() -> None:
    assert lanes_of(NODES[:3], whole={"te3"}) == [["te3", "te1", "te2"]]
    assert lanes_of(NODES, whole={"te3"})[1][:2] == ["te3", "te8"]


def test_who_finds_nobody_may_ask_one_behind_him_who_has_everything() -> None:
    assert asked_by("te2", lanes_of(NODES[:4]), whole=["te4"]) == [["te4", "te1"]]


@given(st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_no_two_wait_for_each_other(count: int, numbers: set[int]) -> None:
    nodes = [f"te{number}" for number in range(count)]
    whole = {nodes[number] for number in numbers if number < count}
    lanes = lanes_of(nodes, whole=whole)
    asked = {node: asked_by(node, lanes, whole=whole) for node in nodes}

    for lane in range(len(lanes)):
        for node in nodes:
            assert not [
                other
                for other in asked[node][lane]
                if other not in whole and node not in whole and node in asked[other][lane]
            ]


@pytest.mark.parametrize("count", [1, 7, 8, 20])
def test_every_node_is_in_every_lane_once(count: int) -> None:
    nodes = [f"te{number}" for number in range(count)]

    assert all(sorted(lane) == sorted(nodes) for lane in lanes_of(nodes))
