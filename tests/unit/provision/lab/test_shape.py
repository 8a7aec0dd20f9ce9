from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import BadInput
from provision.lab.layout import lay_out
from provision.lab.shape import Direction, Shape, bits_per_second, limit, rate_in_words, unlimit

NODE = lay_out(name="lab", subnet="10.77.0.0/24", count=2, disk_bytes=1 << 30, base=Path("/b")).nodes[0]
INSIDE = ("nsenter", "--target=9", "--net")


def bucket(device: str, rate: str, burst: int) -> tuple[str, ...]:
    words = ("tc", "qdisc", "replace", "dev", device, "root", "tbf")
    return (*words, "rate", rate, "burst", f"{burst}b", "latency", "50ms")


def test_what_a_node_receives_is_limited_at_this_machines_end() -> None:
    assert limit(NODE, pid=9, shape=Shape(ingress="200mbit")) == [bucket("cwlab-te1", "200mbit", 262144)]


def test_what_a_node_sends_is_limited_at_its_own_end() -> None:
    assert limit(NODE, pid=9, shape=Shape(egress="200mbit")) == [
        (*INSIDE, *bucket("eth0", "200mbit", 262144))
    ]


def test_a_fast_cable_gets_a_bucket_that_lasts_between_two_refills() -> None:
    assert limit(NODE, pid=9, shape=Shape(ingress="10gbit")) == [bucket("cwlab-te1", "10gbit", 5_000_000)]


def test_no_limits_need_no_command() -> None:
    assert limit(NODE, pid=9, shape=Shape()) == []


def test_both_ends_are_freed() -> None:
    assert unlimit(NODE, pid=9) == [
        ("tc", "qdisc", "delete", "dev", "cwlab-te1", "root"),
        (*INSIDE, "tc", "qdisc", "delete", "dev", "eth0", "root"),
    ]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        (Direction.ingress, Shape(ingress="1gbit", egress="9mbit")),
        (Direction.egress, Shape(ingress="5mbit", egress="1gbit")),
        (Direction.both, Shape(ingress="1gbit", egress="1gbit")),
    ],
)
def test_a_direction_changes_alone(direction: Direction, expected: Shape) -> None:
    assert Shape(ingress="5mbit", egress="9mbit").with_rate("1gbit", direction) == expected


@pytest.mark.parametrize(
    "rate", ["", "200", "fast", "-1mbit", "0mbit", "1.5gbit", "200 mbit", "200mbps", "2tbit"]
)
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(BadInput, match="it is no rate"):
        bits_per_second(rate)


@given(st.integers(min_value=1, max_value=999_999_999))
def test_a_rate_in_words_reads_back_as_the_same_rate(bits: int) -> None:
    assert bits_per_second(rate_in_words(bits)) == bits
