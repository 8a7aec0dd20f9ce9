"""From the matrix of connections to nodes and pairs."""

from __future__ import annotations

import pytest

from runtime.probes.reachability import Reach, between, blame

HOSTS = ("te1", "te2", "te3", "te4")


def matrix(hosts: tuple[str, ...], failing: set[tuple[str, str]]) -> list[Reach]:
    return [
        Reach(source=a, target=b, error="no answer" if (a, b) in failing else "", seconds=0.001)
        for a in hosts
        for b in hosts
        if a != b
    ]


def both(host: str, others: tuple[str, ...]) -> set[tuple[str, str]]:
    return {(host, other) for other in others} | {(other, host) for other in others}


def named(hosts: tuple[str, ...], failing: set[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(b.host, b.target) for b in blame(hosts, matrix(hosts, failing))]


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        (set(), []),
        (both("te3", ("te1", "te2", "te4")), [("te3", "")]),
        ({(other, "te3") for other in ("te1", "te2", "te4")}, [("te3", "")]),
        ({("te2", "te3")}, [("te2", "te3")]),
        ({("te2", "te3"), ("te3", "te2")}, [("te2", "te3"), ("te3", "te2")]),
        (both("te3", ("te1", "te2", "te4")) | {("te1", "te2")}, [("te3", ""), ("te1", "te2")]),
        (both("te3", ("te1", "te2", "te4")) | both("te4", ("te1", "te2")), [("te3", ""), ("te4", "")]),
    ],
)
def test_nodes_are_blamed_before_pairs(
    failing: set[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    assert named(HOSTS, failing) == expected


def test_between_two_nodes_no_side_is_blamed() -> None:
    assert named(("te1", "te2"), {("te1", "te2"), ("te2", "te1")}) == [("te1", "te2"), ("te2", "te1")]


def test_the_words_say_which_direction_fails() -> None:
    inbound = blame(HOSTS, matrix(HOSTS, {(other, "te3") for other in ("te1", "te2", "te4")}))

    assert inbound[0].found == "te1, te2, te4 cannot reach its ports (no answer)"


@pytest.mark.parametrize(
    ("failing", "reaching"),
    [
        ({("te1", "te2")}, ("te3", "te4")),
        ({("te1", "te2"), ("te3", "te2")}, ("te4",)),
        ({("te1", "te2"), ("te3", "te2"), ("te4", "te2")}, ()),  # nobody does: it is the node
        (set(), ()),  # the launcher does: it is ssh itself
    ],
)
def test_a_node_that_others_reach_is_not_the_culprit(
    failing: set[tuple[str, str]], reaching: tuple[str, ...]
) -> None:
    assert between("te1", "te2", matrix(HOSTS, failing)) == reaching
