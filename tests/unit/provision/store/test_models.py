"""What people say of models, and what nodes do: caps, names, generations."""

from __future__ import annotations

from typing import Any

import pytest

from provision.errors import BadInput
from provision.store.models import bytes_per_second, generation_before, models_in, refuse_bad_name
from provision.store.on_nodes import place_in

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def node(*digests: str, held: tuple[str, ...] = (A, B)) -> dict[str, Any]:
    trees = [{"name": "tiny", "digest": digest, "bytes": 5} for digest in held]
    return {"trees": trees, "active": {"tiny": list(digests)}}


@pytest.mark.parametrize(
    ("text", "rate"),
    [("", 0), ("200Mbit", 25e6), ("1gbit/s", 125e6), ("1.5 Gbit", 187.5e6), ("8000bit", 1e3)],
)
def test_a_cap_is_read_as_people_say_it(text: str, rate: float) -> None:
    assert bytes_per_second(text) == rate


@pytest.mark.parametrize("text", ["200", "fast", "-1Mbit", "0Mbit", "200MB", "1e9bit"])
def test_what_is_no_cap_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no rate"):
        bytes_per_second(text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-rf", "a b", "x" * 101, "a\n"])
def test_a_name_is_no_path_and_no_option(name: str) -> None:
    with pytest.raises(BadInput, match="a name has letters"):
        refuse_bad_name(name)


def test_generations_are_shown_with_who_holds_and_who_uses_them() -> None:
    found = models_in({"te1": node(A, B), "te2": node(A, held=(A,))})

    assert [(one.digest, one.held_by, one.used_by) for one in found] == [
        (A, ("te1", "te2"), ("te2",)),
        (B, ("te1",), ("te1",)),
    ]


@pytest.mark.parametrize(
    "said", [{}, {"trees": 5, "active": []}, {"trees": [{"name": "../x", "digest": A}], "active": {"a": [5]}}]
)
def test_what_is_not_as_agreed_is_left_out(said: dict[str, Any]) -> None:
    assert models_in({"te1": said}) == []


def test_the_generation_before_is_the_last_that_all_hold() -> None:
    assert generation_before("tiny", {"te1": node(C, A, B), "te2": node(A, B)}) == A


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"te1": node(A, B), "te2": node(B, A)}, "do not agree"),
        ({"te1": node(A)}, "no generation before"),
        ({"te1": node(C, B, held=(B,))}, "no generation before"),
        ({"te1": {}}, "no generation before"),
    ],
)
def test_without_one_before_nothing_is_switched(said: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        generation_before("tiny", said)


def test_the_store_lies_on_the_data_disk_unless_a_site_says_otherwise() -> None:
    assert place_in({}).store == "/data/store"
    assert place_in({"cluster_data_path": "/scratch"}).models == "/scratch/models"
    assert place_in({"cluster_store_path": "/srv/store", "cluster_user": "root"}).store == "/srv/store"
