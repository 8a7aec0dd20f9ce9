from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.lab.fault.catalogue import CATALOGUE, fault_called
from provision.lab.fault.model import Fault, Target
from provision.lab.layout import lay_out
from provision.lab.shape import Shape

LAB = lay_out(name="lab", subnet="10.77.0.0/24", count=3, disk_bytes=1 << 30, base=Path("/b"))
TARGET = Target(
    lab=LAB,
    node=LAB.nodes[1],
    peer=None,
    value="",
    keeper=9,
    init=11,
    shape=Shape(),
    peer_init=12,
    groups={name: Path(f"/sys/fs/cgroup/{name}/clusterwright/lab/te2") for name in ("cpu", "blkio")},
)
ASKED = {
    *("link-down", "slow-send", "slow-receive", "slow-both", "mtu-hole", "packet-loss"),
    *("firewall-all", "firewall-ports", "firewall-peer", "ports-taken", "wrong-interface"),
    *("loopback-name", "wrong-hosts", "clock-skew", "host-key-changed"),
    *("other-torch", "changed-file", "other-digest", "disk-full", "slow-cpu", "rank-killed", "rank-stopped"),
}
WITHIN = ("nsenter", "--target=11", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--")
CABLE = ("tc", "qdisc", "delete", "dev", "cwlab-te2", "root")


def aimed(fault: Fault, **changes: object) -> Target:
    peer = LAB.nodes[2] if fault.two_nodes else None
    return replace(TARGET, **{"peer": peer, "value": fault.value_of(None), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", CATALOGUE.values(), ids=CATALOGUE)
def test_an_entry_is_whole(fault: Fault) -> None:
    target = aimed(fault)

    assert fault.inject(target)
    assert fault.clear(target) or fault.name == "rank-killed"
    assert all(isinstance(word, str) and word for argv in fault.inject(target) for word in argv)
    assert re.compile(fault.named.cause)
    assert fault.default is None or re.fullmatch(fault.value_pattern, fault.default)
    assert len(fault.what) < 120


def test_the_issue_s_faults_are_there() -> None:
    assert {*CATALOGUE} == {*ASKED, "slow-disk", "slow-link", "slow-direction"}


def test_a_pulled_cable_is_this_machine_s_end() -> None:
    fault = fault_called("link-down")

    assert fault.inject(aimed(fault)) == [("ip", "link", "set", "dev", "cwlab-te2", "down")]
    assert fault.clear(aimed(fault)) == [("ip", "link", "set", "dev", "cwlab-te2", "up")]


def test_a_slow_direction_is_freed_alone_and_without_an_error_when_it_is_free() -> None:
    fault = fault_called("slow-receive")

    laid, freed = fault.clear(aimed(fault))

    assert laid == fault.inject(aimed(fault))[0]
    assert freed == CABLE


def test_a_slow_direction_goes_back_to_the_limit_that_was_asked_for() -> None:
    fault = fault_called("slow-receive")

    *_, last = fault.clear(aimed(fault, shape=Shape(ingress="1gbit", egress="9mbit")))

    assert last[:9] == ("tc", "qdisc", "replace", "dev", "cwlab-te2", "root", "tbf", "rate", "1gbit")


def test_a_firewall_s_rules_are_one_table_which_goes_also_when_it_is_not_there() -> None:
    fault = fault_called("firewall-peer")
    table = "table inet clusterwright_firewall_peer_te3"

    (words,) = fault.inject(aimed(fault))

    assert words[: len(WITHIN)] == WITHIN
    assert words[len(WITHIN) :] == (
        "nft",
        f"{table} {{\nchain in {{\ntype filter hook input priority 0;\nip saddr 10.77.0.13 drop\n}}\n}}",
    )
    assert fault.clear(aimed(fault)) == [(*WITHIN, "nft", f"add {table}; delete {table}")]


def test_a_slow_link_is_slow_at_both_ends_and_cleared_where_it_can_be() -> None:
    fault = fault_called("slow-link")

    here, there = fault.inject(aimed(fault))
    off = aimed(fault, peer_init=0)

    assert "ip saddr 10.77.0.13 limit" in here[-1]
    assert there[1] == "--target=12"
    assert "ip saddr 10.77.0.12 limit" in there[-1]
    assert len(fault.clear(aimed(fault))) == 2
    assert len(fault.clear(off)) == 1
    with pytest.raises(BadInput, match="te3 is off"):
        fault.inject(off)


def test_a_wrong_name_is_a_marked_line() -> None:
    fault = fault_called("loopback-name")

    assert fault.inject(aimed(fault)) == [
        (*WITHIN, "sed", "-i", "1i 127.0.1.1 te2 # clusterwright loopback-name", "/etc/hosts")
    ]
    assert fault.clear(aimed(fault)) == [
        (*WITHIN, "sed", "-i", "/ # clusterwright loopback-name$/d", "/etc/hosts")
    ]


@pytest.mark.parametrize(("name", "controller"), [("slow-cpu", "cpu"), ("slow-disk", "blkio")])
def test_a_limit_needs_its_controller(name: str, controller: str) -> None:
    with pytest.raises(BadInput, match=f"no {controller} controller"):
        fault_called(name).inject(replace(TARGET, value="10", groups={}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slow-send", "fast"),
        ("packet-loss", "100"),
        ("link-down", "1"),
        ("other-torch", "2.5'; rm -rf /"),
        ("firewall-ports", "1; drop"),
        ("clock-skew", "90"),
    ],
)
def test_what_is_no_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=r"it takes (one such as|none)"):
        fault_called(name).value_of(value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="Did you mean slow-send"):
        fault_called("slow-sent")
