from __future__ import annotations

import pytest

from provision.environments.digests import odd_nodes


@pytest.mark.parametrize(
    ("digests", "odd"),
    [
        ({"te1": "a", "te2": "a", "te3": "a"}, []),
        ({"te1": "a", "te2": "b", "te3": "a"}, ["te2"]),
        ({"te1": "a", "te2": "b", "te3": "c", "te4": "a"}, ["te1", "te2", "te3", "te4"]),
        ({"te1": "a", "te2": "b"}, ["te1", "te2"]),
        ({"te1": "a"}, []),
        ({}, []),
    ],
)
def test_the_nodes_without_the_majoritys_environment_are_named(
    digests: dict[str, str], odd: list[str]
) -> None:
    assert odd_nodes(digests) == odd
