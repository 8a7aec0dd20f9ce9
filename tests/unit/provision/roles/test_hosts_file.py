"""/etc/hosts gives each node one address, and keeps what is not ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import BadInput
from provision.roles.cluster_nodes import Node
from provision.roles.hosts_file import BEGIN, END, hosts_file

NODES = [Node(name="te1", address="10.77.0.11"), Node(name="te2", address="10.77.0.12")]
OLD = f"{BEGIN}\n10.77.0.13 te3\n{END}"
BLOCK = f"\n{BEGIN}\n10.77.0.11 te1\n10.77.0.12 te2\n{END}\n"


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n"),
        ("", "127.0.0.1 localhost\n"),
        ("127.0.0.1\tlocalhost\n127.0.1.1\tte1\n", "127.0.0.1\tlocalhost\n"),
        ("127.0.0.1 localhost\n127.0.1.1 te1.localdomain te1\n", "127.0.0.1 localhost\n"),
        ("127.0.0.1 localhost te1\n", "127.0.0.1 localhost\n"),
        ("127.0.0.1 localhost\n192.168.0.9 te2 # by hand\n", "127.0.0.1 localhost\n"),
        (
            "127.0.0.1 localhost\n192.168.0.9 te2 nas # by hand\n",
            "127.0.0.1 localhost\n192.168.0.9 nas # by hand\n",
        ),
        ("127.0.0.1 localhost\n10.0.0.1 te11 # te1\n", "127.0.0.1 localhost\n10.0.0.1 te11 # te1\n"),
        (
            "# first\n::1 localhost ip6-localhost\n",
            "127.0.0.1 localhost\n# first\n::1 localhost ip6-localhost\n",
        ),
        ("127.0.0.1 localhost\n\n\n", "127.0.0.1 localhost\n"),
    ],
)
def test_names_of_nodes_stand_in_the_block_alone(before: str, kept: str) -> None:
    assert hosts_file(before, NODES) == kept + BLOCK


def test_a_changed_node_replaces_the_block() -> None:
    before = hosts_file("127.0.0.1 localhost\n", NODES)

    after = hosts_file(before, [Node(name="te1", address="10.77.0.99")])

    assert after == f"127.0.0.1 localhost\n\n{BEGIN}\n10.77.0.99 te1\n{END}\n"


@given(
    st.lists(
        st.sampled_from(
            ["127.0.0.1 localhost", "127.0.1.1 te1", "# te1", "", "10.0.0.1 nas te2 te1", OLD, END]
        )
    )
)
def test_a_second_pass_changes_nothing(lines: list[str]) -> None:
    once = hosts_file("\n".join(lines), NODES)

    assert hosts_file(once, NODES) == once


def test_lines_behind_a_block_without_an_end_are_not_taken_for_ours() -> None:
    before = f"127.0.0.1 localhost\n\n{BEGIN}\n10.77.0.11 te1\n10.0.0.9 nas\n"

    with pytest.raises(BadInput, match=f"there is no '{END}' behind it"):
        hosts_file(before, NODES)
    assert hosts_file(f"{before}{END}\n10.0.0.8 gate\n", NODES) == (
        f"127.0.0.1 localhost\n\n10.0.0.8 gate\n{BLOCK}"
    )


def test_what_stands_in_a_comment_stays_in_it_and_ends_of_lines_stay() -> None:
    """str.splitlines takes a form feed, and more, for the end of a line."""
    others = "127.0.0.1 localhost\r\n# old\x0c10.0.0.9 gate\u202810.0.0.9 gate\x8510.0.0.9 gate\n"

    assert hosts_file(others + BLOCK.replace("\n", "\r\n"), NODES) == others + BLOCK
