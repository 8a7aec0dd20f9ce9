"""The ledger takes what is new and refuses what changed."""

from __future__ import annotations

import pytest

from provision.errors import BadInput
from provision.roles.cluster_nodes import Node
from provision.roles.ssh_trust.host_keys import (
    BEGIN,
    END,
    client_ports,
    known_hosts,
    known_hosts_block,
    known_hosts_file,
    plan_ledger,
    public_key,
    refused_connections,
    with_host_keys,
)
from tests.conftest import RecordRefusal

OLD, NEW, RSA = "ssh-ed25519 AAAAold", "ssh-ed25519 AAAAnew", "ssh-rsa AAAArsa"


def test_first_contact_fills_the_ledger() -> None:
    plan = plan_ledger({}, {"te1": [OLD]}, replaced=[])

    assert plan.ledger == {"te1": [OLD]}
    assert plan.changed == []


def test_a_changed_key_is_refused_and_names_node_and_both_keys() -> None:
    plan = plan_ledger({"te1": [OLD], "te2": [RSA]}, {"te1": [NEW], "te2": [RSA]}, replaced=[])

    assert [str(key) for key in plan.changed] == [
        "te1: its ssh-ed25519 host key is AAAAnew, the ledger holds AAAAold"
    ]


def test_a_replaced_machine_gets_a_new_entry() -> None:
    plan = plan_ledger({"te1": [OLD]}, {"te1": [NEW]}, replaced=["te1"])

    assert plan.ledger == {"te1": [NEW]}
    assert plan.changed == []


def test_a_new_algorithm_is_added_and_a_removed_one_is_dropped() -> None:
    assert plan_ledger({"te1": [OLD]}, {"te1": [RSA, OLD]}, replaced=[]).ledger == {"te1": [OLD, RSA]}
    assert plan_ledger({"te1": [OLD, RSA]}, {"te1": [OLD]}, replaced=[]).ledger == {"te1": [OLD]}


def test_a_node_that_is_off_keeps_its_entry() -> None:
    plan = plan_ledger({"te1": [OLD], "te2": [RSA]}, {"te1": [OLD]}, replaced=[])

    assert plan.ledger == {"te1": [OLD], "te2": [RSA]}


def test_known_hosts_has_name_and_address_of_the_nodes_of_the_inventory_only() -> None:
    text = known_hosts([Node(name="te1", address="10.77.0.11")], {"te1": [OLD, RSA], "gone": [NEW]})

    assert text.splitlines()[1:] == [f"te1,10.77.0.11 {OLD}", f"te1,10.77.0.11 {RSA}"]


def test_a_port_of_its_own_is_part_of_a_node_s_name_and_of_the_way_to_it() -> None:
    nodes = [
        Node(name="te1", address="10.0.0.1"),
        Node(name="te2", address="10.0.0.2", port=2222),
        Node(name="10.0.0.3", address="10.0.0.3", port=2222),
    ]

    text = known_hosts(nodes, {"te1": [OLD], "te2": [NEW]})

    assert text.splitlines()[1:] == [f"te1,10.0.0.1 {OLD}", f"[te2]:2222,[10.0.0.2]:2222 {NEW}"]
    way = "\nMatch host te2,10.0.0.2,10.0.0.3 localuser train\n  Port 2222"
    assert client_ports(nodes, "train") == way
    assert client_ports(nodes[:1], "train") == ""


def test_host_keys_of_others_stay_and_a_whole_file_of_ours_goes() -> None:
    nodes, ledger = [Node(name="te1", address="10.77.0.11")], {"te1": [NEW]}
    of_others = f"git.example {RSA}\n"
    whole = f"{BEGIN}\nte1,10.77.0.11 {OLD}\ngone {OLD}\n"

    once = known_hosts_file(of_others, nodes, ledger)

    assert once == of_others + known_hosts_block(nodes, ledger)
    assert known_hosts_file(once, nodes, ledger) == once
    assert known_hosts_file(whole, nodes, ledger) == known_hosts_block(nodes, ledger)


def test_a_comment_is_no_part_of_a_key() -> None:
    assert public_key("ssh-ed25519 AAAAold root@debian\n") == OLD


def test_a_refused_host_key_is_told_from_a_node_that_is_off() -> None:
    messages = {
        "te1": "ssh: connect to host 10.77.0.11 port 22: No route to host",
        "te2": "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
        "te3": "No ED25519 host key is known for 10.77.0.13 and you have requested strict checking.",
    }

    refused = refused_connections(messages)

    assert [line.split(": ")[0] for line in refused] == ["te2", "te3"]
    assert "ssh_trust_replaced_nodes" in refused[0]
    assert "ssh-keyscan" in refused[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "10.0.0.3 ssh-ed25519 NEW\n"),
        (
            "# kept\n10.0.0.3 ssh-ed25519 OLD\n10.0.0.33 x y\n",
            "# kept\n10.0.0.33 x y\n10.0.0.3 ssh-ed25519 NEW\n",
        ),
        ("te3,10.0.0.3 ssh-rsa OLD\nte3,10.0.0.3 ssh-ed25519 OLD\n", "te3,10.0.0.3 ssh-ed25519 NEW\n"),
    ],
)
def test_a_machines_new_keys_replace_its_old_ones_and_nobody_elses(text: str, expected: str) -> None:
    assert with_host_keys(text, "10.0.0.3", ["ssh-ed25519 NEW"]) == expected


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "ssh-ed25519",
        "te1,* ssh-ed25519",
        'cert-authority,namespaces="x" ssh-ed25519 AAAA',
        "ssh-rsa \x1b[2J",
    ],
)
def test_what_is_no_host_key_comes_into_no_ledger(text: str, record_refusal: RecordRefusal) -> None:
    """One word alone ended the comparison for all nodes."""
    assert public_key(text) == ""
    record_refusal("read as no key")


@pytest.mark.parametrize("first", ["", f"{BEGIN}\nte1,10.77.0.11 {OLD}\n{END}\n"])
def test_host_keys_of_others_behind_a_block_without_an_end_stay(first: str) -> None:
    text = f"{first}git.example {RSA}\n{BEGIN}\nte1,10.77.0.11 {OLD}\nbackup.example {RSA}\n"

    with pytest.raises(BadInput, match="lines of others may follow"):
        known_hosts_file(text, [Node(name="te1", address="10.77.0.11")], {"te1": [NEW]})


@pytest.mark.attack("left behind")
@pytest.mark.parametrize("line", ["10.0.0.5\t{}", " 10.0.0.5 {}", "\tte5,10.0.0.5\t{}\tcomment"])
def test_the_key_of_an_old_machine_is_not_known_any_more_whatever_blanks_ssh_takes(
    line: str, record_refusal: RecordRefusal
) -> None:
    after = with_host_keys(f"{line.format(OLD)}\n", "10.0.0.5", [NEW])

    record_refusal(f"of {line.format(OLD)!r} is left {after!r}")
    assert "old" not in after
    assert after.endswith(f"10.0.0.5 {NEW}\n")


@pytest.mark.attack("left behind")
def test_what_a_comment_of_known_hosts_names_is_not_trusted(record_refusal: RecordRefusal) -> None:
    """A form feed ends a line for str.splitlines, and none for ssh."""
    text = f"# was:\x0cgit.example {OLD}\u2028git.example {OLD}\r\n@revoked 10.0.0.5 {OLD}\n"

    after = with_host_keys(text, "10.0.0.5", [NEW])
    node = known_hosts_file(text, [Node(name="te5", address="10.0.0.5")], {"te5": [NEW]})

    record_refusal(f"it stays one comment: {after.split(chr(10))[0]!r}")
    assert after == f"{text}10.0.0.5 {NEW}\n"
    assert node.startswith(text)
