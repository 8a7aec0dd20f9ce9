"""Keys that stand twice are found wherever they stand."""

from __future__ import annotations

import pytest

from provision.core.yaml_keys import duplicate_keys


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1\nb: 2\n", []),
        ("a: 1\na: 2\n", [("a", [1, 2])]),
        ("x:\n  - {a: 1}\n  - {b: 1, b: 2, b: 3}\n", [("b", [3, 3, 3])]),
        ("x: {a: 1}\ny: {a: 1}\n", []),
        ("password: !vault |\n  $ANSIBLE_VAULT;1.1\n", []),
        ("[cluster]\nte1 a: b: c\n", []),
        ("", []),
    ],
)
def test_duplicates_are_found_with_their_lines(text: str, found: list[tuple[str, list[int]]]) -> None:
    assert duplicate_keys(text) == found
