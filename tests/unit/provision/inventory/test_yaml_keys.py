"""Keys that stand twice are found wherever they stand."""

from __future__ import annotations

import pytest

from provision.errors import BadInput
from provision.inventory.edits import undrain
from provision.inventory.problems import duplicate_keys
from tests.conftest import RecordRefusal


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


ENDLESS = {
    "a list that holds itself": "a: &a [*a]\n",
    "a mapping that holds itself": "a: &a {b: *a}\n",
    "lists of lists, each many times": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(8))}}}\n" for n in range(1, 30)),
    "lists in lists": "[" * 5000 + "]" * 5000,
}


@pytest.mark.attack("file")
@pytest.mark.parametrize("form", ENDLESS)
def test_what_has_no_end_is_gone_through_once(form: str, record_refusal: RecordRefusal) -> None:
    assert duplicate_keys(ENDLESS[form]) == []

    with pytest.raises(BadInput) as refusal:
        undrain(ENDLESS[form], "te1")
    record_refusal(refusal.value)
