"""The second rung on real nodes: what is slow, lossy or narrow is named before torch starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.conftest import LabUnderTest
from tests.lab.jobs import firewall, smoke

MBIT_200 = 200e6 / 8
# Ethernet, IP and TCP headers with time stamps take 66 + 12 of each 1514 bytes that a shaper counts.
PAYLOAD_SHARE = 1448 / 1514


def failed(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Check and place of every check that is not passed or skipped."""
    return [(c["id"], c["where"]) for c in result["checks"] if c["verdict"] in ("fail", "inconclusive")]


@contextmanager
def shaped(lab: LabUnderTest, node: str, *, towards: str = "") -> Iterator[None]:
    """What a node sends, to everyone or to one address, at 200 Mbit/s."""
    lab.run(node, "tc qdisc add dev eth0 root handle 1: prio bands 3 priomap 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1")
    match = f"match ip dst {lab.address(towards)}/32" if towards else "match u32 0 0"
    try:
        lab.run(node, "tc qdisc add dev eth0 parent 1:3 tbf rate 200mbit burst 128kb latency 50ms")
        lab.run(node, f"tc filter add dev eth0 parent 1: protocol ip prio 1 u32 {match} flowid 1:3")
        yield
    finally:
        lab.run(node, "tc qdisc del dev eth0 root")


@pytest.mark.parametrize("number", range(3))
def test_healthy_nodes_pass_quickly(converged_lab: LabUnderTest, number: int) -> None:
    passed = smoke(converged_lab, "--quick")

    assert passed.returncode == 0, (number, passed.printed)
    assert failed(passed.result) == []
    assert len(passed.result["pairs"]) == 12
    assert {pair["path_mtu"] for pair in passed.result["pairs"]} == {1500}


def test_a_slow_sender_is_named_and_its_rate_is_right(converged_lab: LabUnderTest) -> None:
    with shaped(converged_lab, "te3"):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert failed(found.result) == [("sockets.bandwidth", "te3 transmit")]
    sent = [pair["bytes_per_s"] for pair in found.result["pairs"] if pair["source"] == "te3"]
    assert sent == pytest.approx([MBIT_200 * PAYLOAD_SHARE] * 3, rel=0.1)


def test_one_slow_direction_is_named_and_the_other_is_not(converged_lab: LabUnderTest) -> None:
    with shaped(converged_lab, "te1", towards="te4"):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert failed(found.result) == [("sockets.bandwidth", "te1 -> te4")]


def test_a_slow_direction_and_a_wrong_name_are_both_named(converged_lab: LabUnderTest) -> None:
    converged_lab.run("te2", "cp /etc/hosts /etc/hosts.kept; sed -i '1i 10.255.0.9 te3' /etc/hosts")
    try:
        with shaped(converged_lab, "te1", towards="te4"):
            found = smoke(converged_lab, "--quick")
    finally:
        converged_lab.run("te2", "cat /etc/hosts.kept > /etc/hosts; rm /etc/hosts.kept")

    assert found.returncode == 1, found.printed
    assert set(failed(found.result)) == {("host.names", "te2"), ("sockets.bandwidth", "te1 -> te4")}


def test_packets_that_do_not_pass_whole_are_named_where_the_stream_stalls(
    converged_lab: LabUnderTest,
) -> None:
    with firewall(converged_lab, "te2", f"ip saddr {converged_lab.address('te1')} meta length gt 1200 drop"):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert ("sockets.path-mtu", "te1 -> te2") in failed(found.result)
    assert all(where == "te1 -> te2" for _, where in failed(found.result))


def test_a_lossy_direction_is_named_with_what_was_sent_again(converged_lab: LabUnderTest) -> None:
    loses = f"ip saddr {converged_lab.address('te4')} numgen random mod 100 < 10 drop"
    with firewall(converged_lab, "te2", loses):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert ("sockets.bandwidth", "te4 -> te2") in failed(found.result)
    assert {where for _, where in failed(found.result)} <= {"te4 -> te2", "te2 <-> te4"}
    assert "segments were sent again" in found.told()
