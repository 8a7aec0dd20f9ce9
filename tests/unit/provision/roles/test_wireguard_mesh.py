"""Who is whose peer, whose key is whose, and what of a live mesh is not as wanted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from provision.roles.wireguard_mesh import (
    KEY,
    Mesh,
    Peer,
    configuration,
    peers_of,
    plan_ledger,
    problems,
    refusals,
    silent,
)
from tests.conftest import RecordRefusal

ONE, TWO, THREE, OTHER = (f"{name:A<43}=" for name in ("ONE", "TWO", "THREE", "OTHER"))
KEYS = {"te1": ONE, "te2": TWO, "te3": THREE}
PEERS = [
    Peer(name="te2", address="10.88.0.2", endpoint="192.0.2.2"),
    Peer(name="te3", address="10.88.0.3", endpoint="192.0.2.3", port=51999),
]
MESH = Mesh(
    name="te1",
    interface="wg-mesh",
    address="10.88.0.1",
    network="10.88.0.0/24",
    port=51820,
    mtu=1420,
    peers=PEERS,
)
UNIT, FOREIGN = "/etc/systemd/system/clusterwright-wireguard-mesh.service", "/etc/wireguard/wg-mesh.conf"


def link(**more: Any) -> dict[str, Any]:
    address = {"local": "10.88.0.1", "prefixlen": 24}
    return {"ifname": "wg-mesh", "mtu": 1420, "flags": ["UP"], "addr_info": [address], **more}


ETH = link(ifname="eth0", mtu=1500, addr_info=[{"local": "192.0.2.1", "prefixlen": 24}])


def live(**more: str) -> dict[str, dict[str, Any]]:
    """What a node answers whose mesh is as wanted; `links`, `routes` and others are JSON."""
    said = {
        "addresses": json.dumps([ETH, link()]),
        "routes": json.dumps([{"dst": "default", "dev": "eth0"}, {"dst": "10.88.0.0/24", "dev": "wg-mesh"}]),
        "routes6": "[]",
        "key": ONE,
        "port": "51820",
        "peers": f"{TWO}\t10.88.0.2/32\n{THREE}\t10.88.0.3/32",
        "guard": json.dumps({"nftables": [{"rule": {}}, {"rule": {}}]}),
        "enabled": "enabled",
        "active": "active",
        "listening": 'UNCONN 0 0 *:51820 *:* users:(("wireguard-go",pid=7,fd=9))',
        "public": ONE,
        "lacking": "",
        "kernel": "",
        "tun": "",
        "silent": "",
    }
    return {name: {"rc": 0, "stdout": text, "stderr": ""} for name, text in {**said, **more}.items()}


def observed(commands: dict[str, dict[str, Any]], **files: Any) -> dict[str, Any]:
    key = {"mode": "0600", "owner": "root", "group": "root", "sha256": "x"}
    return {"commands": commands, "files": {UNIT: {"text": ""}, FOREIGN: None, KEY: key, **files}}


def refused(commands: dict[str, dict[str, Any]], **files: Any) -> list[str]:
    return refusals(observed(commands, **files), MESH, paths=(UNIT, FOREIGN))


def test_a_node_s_address_and_endpoint_come_from_the_inventory() -> None:
    variables = {
        "te1": {"ansible_host": "192.0.2.1", "cluster_address": "10.88.0.1"},
        "te2": {"ansible_host": "x", "wireguard_mesh_endpoint": "192.0.2.9", "wireguard_mesh_port": 5},
    }

    assert peers_of(["te2", "te1"], variables) == [
        Peer(name="te2", address="x", endpoint="192.0.2.9", port=5),
        Peer(name="te1", address="10.88.0.1", endpoint="192.0.2.1"),
    ]


def test_a_node_knows_each_other_one_by_one_address_and_none_whose_key_is_unknown() -> None:
    text = configuration(MESH, {"te1": ONE, "te3": THREE, "te9": "NINE="})

    assert text == (
        "# Clusterwright: see role wireguard_mesh.\n[Interface]\nListenPort = 51820\n\n# te3\n[Peer]\n"
        f"PublicKey = {THREE}\nAllowedIPs = 10.88.0.3/32\nEndpoint = 192.0.2.3:51999\n"
    )
    assert "PrivateKey" not in text


def test_an_endpoint_of_ipv6_stands_in_brackets() -> None:
    mesh = replace(MESH, peers=[Peer(name="te2", address="fd00::2", endpoint="2001:db8::2")])

    text = configuration(mesh, KEYS)

    assert "AllowedIPs = fd00::2/128\nEndpoint = [2001:db8::2]:51820\n" in text


def test_a_key_that_was_not_known_is_taken_in_and_others_keep_theirs() -> None:
    plan = plan_ledger({"te1": ONE}, {"te2": TWO}, replaced=())

    assert (plan.ledger, plan.problems, plan.differs) == ({"te1": ONE, "te2": TWO}, {}, True)


def test_where_all_keys_are_known_nothing_is_to_be_done() -> None:
    assert not plan_ledger(KEYS, {"te1": ONE, "te2": TWO}, replaced=()).differs


def test_a_node_without_a_key_gets_one_though_the_ledger_has_one() -> None:
    plan = plan_ledger(KEYS, {"te1": ""}, replaced=())

    assert (plan.ledger, plan.problems, plan.differs) == (KEYS, {}, True)


def test_a_key_that_was_changed_is_refused_unless_the_machine_was_replaced_or_the_key_made_now() -> None:
    changed = plan_ledger(KEYS, {"te1": OTHER}, replaced=())

    assert f"is {OTHER}, the ledger holds {ONE}: somebody changed it" in changed.problems["te1"][0]
    assert '-e \'{"ssh_trust_replaced_nodes": ["te1"]}\'' in changed.problems["te1"][0]
    for plan in (
        plan_ledger(KEYS, {"te1": OTHER}, replaced=["te1"]),
        plan_ledger(KEYS, {"te1": f"made\n{OTHER}"}, replaced=()),
    ):
        assert (plan.problems, plan.ledger["te1"], plan.differs) == ({}, OTHER, True)


def test_two_machines_with_one_key_are_refused() -> None:
    of_a_copy = plan_ledger(KEYS, {"te4": TWO}, replaced=())
    of_two_new = plan_ledger({}, {"te1": ONE, "te2": ONE}, replaced=())

    assert "te2 has the same /etc/wireguard/clusterwright.key" in of_a_copy.problems["te4"][0]
    assert set(of_two_new.problems) == {"te1", "te2"}


def test_a_mesh_as_wanted_has_no_problem_and_is_not_refused() -> None:
    assert problems(live(), MESH, KEYS) == []
    assert silent(live(), MESH) == []
    assert refused(live()) == []


def test_a_node_without_any_of_it_is_not_refused() -> None:
    blank = live(
        addresses=json.dumps([ETH]), listening="", key="", port="", peers="", lacking="wg\nwireguard-go"
    )
    blank["public"]["rc"] = 127

    assert refused(blank, **{UNIT: None, KEY: None}) == []
    assert problems(blank, MESH, KEYS) == [
        "there is no interface wg-mesh (journalctl -u clusterwright-wireguard-mesh.service)"
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"enabled": "disabled"}, "its unit is disabled, not enabled"),
        ({"active": "failed"}, "its unit is failed, not active"),
        ({"key": OTHER}, f"its public key is {OTHER}, the ledger holds {ONE}"),
        ({"port": "5"}, "it listens on UDP port 5, and should on 51820"),
        ({"peers": f"{TWO}\t10.88.0.2/32"}, "its peer te3 is no peer, and should be 10.88.0.3/32"),
        ({"peers": f"{TWO}\t0.0.0.0/0\n{THREE}\t10.88.0.3/32"}, "its peer te2 is 0.0.0.0/0"),
        (
            {"peers": f"{TWO}\t10.88.0.2/32\n{THREE}\t10.88.0.3/32\nEVIL=\t10.88.0.9/32"},
            "it has a peer EVIL= at 10.88.0.9/32 that is no node",
        ),
        ({"guard": ""}, "the table inet clusterwright_mesh has 0 rules, and should have 2"),
        (
            {"addresses": json.dumps([link(addr_info=[])])},
            "wg-mesh has no address, and should have 10.88.0.1/24",
        ),
        (
            {"addresses": json.dumps([link(mtu=1280)])},
            "wg-mesh is up with MTU 1280, and should be up with 1420",
        ),
        ({"addresses": json.dumps([link(flags=[])])}, "wg-mesh is down with MTU 1420"),
    ],
)
def test_what_is_live_and_not_as_wanted_is_named(more: dict[str, str], words: str) -> None:
    found = problems(live(**more), MESH, KEYS)

    assert len(found) == 1
    assert words in found[0]


def test_who_does_not_answer_is_named_with_what_has_to_get_through() -> None:
    (found,) = silent(live(silent="10.88.0.3"), MESH)

    assert found.startswith("te3 does not answer at 10.88.0.3: let UDP port 51999 of 192.0.2.3 through")


@pytest.mark.parametrize(
    ("more", "files", "words"),
    [
        ({}, {UNIT: None}, "there is an interface wg-mesh that site.yml did not make"),
        ({}, {FOREIGN: {"text": ""}}, "/etc/wireguard/wg-mesh.conf is somebody else's"),
        (
            {"addresses": json.dumps([link(), link(ifname="wg0", addr_info=[{"local": "10.88.0.7"}])])},
            {},
            "wg0 has 10.88.0.7, which is of the mesh's 10.88.0.0/24",
        ),
        (
            {"routes": json.dumps([{"dst": "10.0.0.0/8", "dev": "eth0"}])},
            {},
            "10.0.0.0/8 goes through eth0, and overlaps the mesh's 10.88.0.0/24",
        ),
        (
            {"port": "", "listening": 'U 0 0 *:51820 *:* users:(("wg0d",pid=1,fd=2))'},
            {},
            "wg0d listens on UDP port 51820",
        ),
        ({"port": "", "listening": "UNCONN 0 0 *:51820 *:*"}, {}, "the kernel listens on UDP port 51820"),
        (
            {},
            {KEY: {"mode": "0644", "owner": "root"}},
            "is root's with mode 0644, so others may have read it",
        ),
        ({}, {KEY: {"mode": "0600", "owner": "ann"}}, "is ann's with mode 0600"),
    ],
)
def test_what_is_somebody_else_s_is_refused_by_name(
    more: dict[str, str], files: dict[str, Any], words: str
) -> None:
    found = refused(live(**more), **files)

    assert len(found) == 1
    assert words in found[0]


def test_a_file_that_is_no_key_and_a_container_without_a_tunnel_are_refused() -> None:
    no_key, no_tunnel = live(), live()
    no_key["public"]["rc"] = 1
    no_tunnel["kernel"]["rc"] = no_tunnel["tun"]["rc"] = 1

    assert refused(no_key) == [f"{KEY} holds no WireGuard key. Delete it, and the next run makes a new one"]
    assert "wireguard-go needs /dev/net/tun" in refused(no_tunnel)[0]


@pytest.mark.attack("node")
@pytest.mark.parametrize(
    "word", ["garbage", "0.0.0.0/0", ONE[:-1], f"{ONE}=", "A" * 44, f"{ONE[:-2]}B=", "\x1b[2J", "\u00e9" * 44]
)
def test_a_word_that_is_no_key_comes_into_no_ledger(word: str, record_refusal: RecordRefusal) -> None:
    plan = plan_ledger(KEYS, {"te1": ONE, "te4": word, "te5": f"made\n{word}"}, replaced=["te4"])

    record_refusal(plan.problems["te4"][0])
    assert plan.ledger == KEYS
    assert set(plan.problems) == {"te4", "te5"}
    assert "no WireGuard key" in plan.problems["te5"][0]
