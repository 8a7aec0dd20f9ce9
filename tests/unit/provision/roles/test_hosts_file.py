"""/etc/hosts gives each node one address, and keeps what is not ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.errors import BadInput
from provision.roles.cluster_nodes import Node
from provision.roles.hosts_file import BEGIN, END, hosts_file, short_names

NODES = [Node(name="te1", address="10.77.0.11"), Node(name="te2", address="10.77.0.12")]
OLD = f"{BEGIN}\n10.77.0.13 te3\n{END}"
MAPPED = "::ffff:10.77.0.11 te1.mapped\n::ffff:10.77.0.12 te2.mapped\n"
BLOCK = f"\n{BEGIN}\n10.77.0.11 te1\n10.77.0.12 te2\n{MAPPED}{END}\n"


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n"),
        ("", "127.0.0.1 localhost\n"),
        ("127.0.0.1\tlocalhost\n127.0.1.1\tte1\n", "127.0.0.1\tlocalhost\n"),
        (
            "127.0.0.1 localhost\n127.0.1.1 te1.localdomain te1\n",
            "127.0.0.1 localhost\n127.0.1.1 te1.localdomain\n",
        ),
        (
            "127.0.0.1 localhost\n10.0.0.9 te1.corp.example te1.\n",
            "127.0.0.1 localhost\n10.0.0.9 te1.corp.example te1.\n",
        ),
        ("127.0.0.1 localhost\n192.168.0.9 TE2\n", "127.0.0.1 localhost\n"),
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

    block = "10.77.0.99 te1\n::ffff:10.77.0.99 te1.mapped\n"
    assert after == f"127.0.0.1 localhost\n\n{BEGIN}\n{block}{END}\n"


def test_an_address_of_ipv6_is_asked_for_as_it_is() -> None:
    after = hosts_file("", [Node(name="te1", address="fd00::11")])

    assert after == f"127.0.0.1 localhost\n\n{BEGIN}\nfd00::11 te1\n{END}\n"


LINES = [
    *("127.0.0.1 localhost", "127.0.1.1 te1", "# te1", "", "10.0.0.1 nas te2 te1", OLD, END),
    *(
        "127.0.1.1 te1.cluster.example te1",
        "10.0.0.9 te2.cluster.example TE2",
        "10.0.0.8 te2.corp.example te2",
    ),
    "10.0.0.7 te1 # theirs",
]


@given(st.lists(st.sampled_from(LINES)))
def test_a_second_pass_changes_nothing(lines: list[str]) -> None:
    for nodes, own in ((NODES, ""), (WHOLE, "te1.cluster.example")):
        once = hosts_file("\n".join(lines), nodes, own=own)

        assert hosts_file(once, nodes, own=own) == once


WHOLE = [
    Node(name="te1.cluster.example", address="10.77.0.11"),
    Node(name="te2.cluster.example", address="10.77.0.12"),
]
LOCAL = "127.0.0.1 localhost\n"


@pytest.mark.parametrize(
    ("before", "kept", "short"),
    [
        pytest.param("127.0.1.1 te1.cluster.example te1\n", "", ["te1", "te2"], id="Debian's own line"),
        pytest.param("127.0.1.1 te1\n", "", ["te1", "te2"], id="its short name as an installer leaves it"),
        pytest.param(
            "127.0.1.1 te2\n", "127.0.1.1 te2\n", ["te1"], id="another node's, by itself: somebody's"
        ),
        pytest.param(
            "127.0.1.1 te1.cluster.example te1 www\n",
            "127.0.1.1 www\n",
            ["te1", "te2"],
            id="other names stay",
        ),
        pytest.param(
            "10.0.0.9 te2.corp.example te2\n", "10.0.0.9 te2.corp.example te2\n", ["te1"], id="theirs"
        ),
        pytest.param(
            "127.0.1.1 te1.cluster.example te1\n10.0.0.7 te1\n",
            "127.0.1.1 te1\n10.0.0.7 te1\n",
            ["te2"],
            id="two claims",
        ),
        pytest.param("10.0.0.5 te2.cluster.example te2\n", "", ["te1", "te2"], id="an old address"),
    ],
)
def test_long_names_get_their_short_ones_where_nobody_else_has_them(
    before: str, kept: str, short: list[str]
) -> None:
    after = hosts_file(LOCAL + before, WHOLE, own="te1.cluster.example")

    block = [f"10.77.0.1{name[2]} {name}.cluster.example" for name in ("te1", "te2")]
    lines = [f"{line} {line.split()[1][:3]}" if line.split()[1][:3] in short else line for line in block]
    lines += [f"::ffff:{line}.mapped" for line in block]
    assert after == f"{LOCAL}{kept}\n{BEGIN}\n" + "".join(f"{line}\n" for line in lines) + f"{END}\n"


def test_a_short_name_that_two_nodes_could_have_or_one_has_already_is_given_to_none() -> None:
    def named(*names: str) -> list[str]:
        return sorted(short_names([Node(name=name, address="10.0.0.1") for name in names]))

    assert named("te1.a.example", "te1.b.example", "te2.a.example") == ["te2"]
    assert named("te1.a.example", "te1") == []
    assert named("10.a.example", "te3") == []


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
