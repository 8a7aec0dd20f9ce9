"""The rules around the ports of jobs, what is live of them, and whom they would cut off."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from provision.roles.job_firewall import Fence, live_differences, members_text, merged, refusals, rules_text

FENCE = Fence(
    nodes=["10.0.0.1", "10.0.0.2", "fd00::1"],
    admitted=["10.9.0.0/16", "192.0.2.7"],
    ports=["29500", "32768-60999"],
    open_ports=["22"],
    users=[0, 1000],
)
LISTENING = """\
LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=51,fd=3))
LISTEN 0 128 127.0.0.1:40000 0.0.0.0:* users:(("kernel",pid=60,fd=3))
LISTEN 0 128 [::1]:40001 [::]:* users:(("kernel",pid=60,fd=4))
LISTEN 0 128 127.0.0.53%lo:40002 0.0.0.0:* users:(("resolved",pid=61,fd=4))
LISTEN 0 128 *:8888 *:* users:(("jupyter",pid=70,fd=4))
LISTEN 0 128 [::]:43521 [::]:* users:(("rpc.statd",pid=80,fd=4))
LISTEN 0 64 0.0.0.0:43522 0.0.0.0:*
"""


def chain(name: str, rules: int = 2) -> list[dict[str, Any]]:
    return [{"chain": {"name": name, "hook": name}}, *[{"rule": {"chain": name}}] * rules]


def listed(**changes: list[Any]) -> str:
    """What nft prints of the table of FENCE, or of one that differs."""
    sets: dict[str, list[Any]] = {
        "nodes": ["10.0.0.2", "10.0.0.1"],
        "nodes6": ["fd00::1"],
        "admitted": [{"prefix": {"addr": "10.9.0.0", "len": 16}}, "192.0.2.7"],
        "ports": [29500, {"range": [32768, 60999]}],
        "open_ports": [22],
        "users": [0, 1000],
    }
    entries: list[dict[str, Any]] = [
        {"set": {"name": name, "elem": elements}} for name, elements in (sets | changes).items()
    ]
    return json.dumps({"nftables": [*entries, *chain("input"), *chain("forward"), *chain("output")]})


def refused(**changes: Any) -> list[str]:
    commands: dict[str, dict[str, Any]] = {
        "table": {"rc": 1, "stdout": ""},
        "users": {"rc": 0, "stdout": "0"},
        "listening": {"rc": 0, "stdout": ""},
    }
    values = {"fence": replace(FENCE, admitted=[]), "is_ours": False, "may_lack": False, **changes}
    commands |= values.pop("commands", {})
    return refusals(commands, values.pop("fence"), **values)


def test_only_the_first_packet_of_a_connection_is_judged_by_one_rule_in_each_family() -> None:
    rules = [line for line in rules_text(FENCE, "/m").splitlines() if "reject" in line]

    assert len(rules) == 6
    assert all(
        "tcp flags & (syn | ack) == syn tcp dport @ports tcp dport != @open_ports" in one for one in rules
    )
    assert sum("meta skuid != @users" in one for one in rules) == 2
    assert sum('iifname != "lo"' in one for one in rules) == 2


def test_no_table_but_ours_is_touched_and_it_is_replaced_at_once() -> None:
    text = rules_text(FENCE, "/m") + members_text(FENCE.nodes, FENCE.admitted)

    assert "flush" not in text
    assert {line for line in text.splitlines() if line.startswith(("table", "delete"))} == {
        "table inet clusterwright",
        "delete table inet clusterwright",
        "table inet clusterwright {",
    }


def test_each_address_goes_into_the_set_of_its_family_and_an_empty_set_has_no_elements() -> None:
    text = members_text(["10.0.0.1", "fd00::1"], [])

    assert "set nodes { type ipv4_addr; elements = { 10.0.0.1 }; }" in text
    assert "set nodes6 { type ipv6_addr; elements = { fd00::1 }; }" in text
    assert "set admitted { type ipv4_addr; flags interval; auto-merge; }" in text


def test_a_table_as_it_should_be_differs_in_nothing() -> None:
    assert live_differences(listed(), FENCE) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"nodes": ["10.0.0.1"]},
            "nodes are 10.0.0.1/32, fd00::1/128, and should be 10.0.0.1/32, 10.0.0.2/32",
        ),
        ({"nodes": ["10.0.0.1", "10.0.0.2", "10.0.0.66"]}, "10.0.0.66/32"),
        ({"admitted": []}, "admitted are none, and should be 10.9.0.0/16, 192.0.2.7/32"),
        ({"ports": [29500]}, "ports are 29500, and should be 29500, 32768-60999"),
        ({"open_ports": [22, 40000]}, "open_ports are 22, 40000, and should be 22"),
        ({"users": [0, 1000, 1001]}, "users are 0, 1000, 1001, and should be 0, 1000"),
    ],
)
def test_what_differs_is_named(changes: dict[str, Any], words: str) -> None:
    (found,) = live_differences(listed(**changes), FENCE)

    assert words in found


@pytest.mark.parametrize("text", ["", "{}", "[]", "Error: No such file or directory"])
def test_no_table_is_a_difference(text: str) -> None:
    assert live_differences(text, FENCE) == ["there is no table inet clusterwright"]


def test_a_chain_that_was_emptied_is_a_difference() -> None:
    entries = json.loads(listed())["nftables"]
    emptied = json.dumps(
        {"nftables": [one for one in entries if one.get("rule", {}).get("chain") != "input"]}
    )

    assert live_differences(emptied, FENCE) == ["its chain input has 0 rules, and should have 2"]


@pytest.mark.parametrize(
    ("ports", "joined"),
    [
        (["32768-60999", "29500"], ["29500", "32768-60999"]),
        (["1024-65535", "29500"], ["1024-65535"]),
        (["8000", "8001", "8003-8005"], ["8000-8001", "8003-8005"]),
    ],
)
def test_ports_that_touch_are_joined_as_nft_joins_them(ports: list[str], joined: list[str]) -> None:
    assert merged(ports) == joined


def test_whoever_would_be_cut_off_is_named_before_anything_is_loaded() -> None:
    (found,) = refused(commands={"listening": {"rc": 0, "stdout": LISTENING}})

    assert found.startswith(
        "rpc.statd on port 43521, the kernel on port 43522 would be reached by the cluster's"
    )
    assert "job_firewall_open_ports" in found


@pytest.mark.parametrize(
    "changes",
    [
        {"is_ours": True},
        {"fence": replace(FENCE, open_ports=["43521-43522"], admitted=[])},
        {"fence": FENCE},
    ],
)
def test_what_is_known_or_left_open_is_no_reason(changes: dict[str, Any]) -> None:
    assert refused(commands={"listening": {"rc": 0, "stdout": LISTENING}}, **changes) == []


def test_a_range_in_which_services_listen_names_them_all() -> None:
    wide = replace(FENCE, ports=["1024-65535"], admitted=[])

    (found,) = refused(fence=wide, commands={"listening": {"rc": 0, "stdout": LISTENING}})

    assert "jupyter on port 8888" in found
    assert "sshd" not in found


def test_a_table_of_somebody_else_is_not_replaced() -> None:
    commands = {"table": {"rc": 0, "stdout": listed()}}

    assert "that this role has not made" in refused(commands=commands)[0]
    assert refused(commands=commands, is_ours=True) == []


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ({"table": {"rc": 127, "stdout": ""}}, "there is no nft"),
        ({"users": {"rc": 1, "stdout": "0", "stderr": "id: 'bob': no such user"}}, "id: 'bob': no such user"),
    ],
)
def test_what_is_missing_is_said_but_in_check_mode_may_still_come(
    commands: dict[str, Any], words: str
) -> None:
    (found,) = refused(commands=commands)

    assert words in found
    assert refused(commands=commands, may_lack=True) == []
