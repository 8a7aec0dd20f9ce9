"""The second stage on real nodes: what is slow, lossy or narrow is named before torch starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.lab.conftest import LabUnderTest
from tests.lab.jobs import firewall, smoke

pytestmark = pytest.mark.measures

MBIT_200 = 200e6 / 8
# Ethernet, IP and TCP headers with time stamps take 66 + 12 of each 1514 bytes that a shaper counts.
PAYLOAD_SHARE = 1448 / 1514


def failed(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Check and place of every check that is not passed or skipped."""
    return [(c["id"], c["where"]) for c in result["checks"] if c["verdict"] in ("fail", "inconclusive")]


@contextmanager
def slow_sender(lab: LabUnderTest, node: str) -> Iterator[None]:
    """What a node sends, to everyone, at 200 Mbit/s."""
    lab.run(node, "tc qdisc add dev eth0 root tbf rate 200mbit burst 128kb latency 50ms")
    try:
        yield
    finally:
        lab.run(node, "tc qdisc del dev eth0 root")


def slow_direction(lab: LabUnderTest, source: str, target: str) -> AbstractContextManager[None]:
    """What one node receives of another at 20 MB/s, by dropping the rest, as a provider's policer does."""
    limit = "limit rate over 20 mbytes/second burst 256 kbytes drop"
    return firewall(lab, target, f"ip saddr {lab.address(source)} {limit}")


@pytest.mark.parametrize("number", [0, *(pytest.param(again, marks=pytest.mark.long) for again in (1, 2))])
def test_healthy_nodes_pass_quickly(converged_lab: LabUnderTest, number: int) -> None:
    passed = smoke(converged_lab, "--quick")

    assert passed.returncode == 0, (number, passed.printed)
    assert failed(passed.result) == []
    assert len(passed.result["pairs"]) == 12
    assert {pair["path_mtu"] for pair in passed.result["pairs"]} == {1500}


def test_a_slow_sender_is_named_and_its_rate_is_right(converged_lab: LabUnderTest) -> None:
    with slow_sender(converged_lab, "te3"):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert failed(found.result) == [("sockets.bandwidth", "te3 transmit")]
    sent = [pair["bytes_per_s"] for pair in found.result["pairs"] if pair["source"] == "te3"]
    assert sent == pytest.approx([MBIT_200 * PAYLOAD_SHARE] * 3, rel=0.1)


def test_one_slow_direction_is_named_and_the_other_is_not(converged_lab: LabUnderTest) -> None:
    with slow_direction(converged_lab, "te1", "te4"):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert failed(found.result) == [("sockets.bandwidth", "te1 -> te4")]


def test_a_slow_direction_and_a_wrong_name_are_both_named(converged_lab: LabUnderTest) -> None:
    converged_lab.run("te2", "cp /etc/hosts /etc/hosts.kept; sed -i 's/^.* te3$/10.255.0.9 te3/' /etc/hosts")
    try:
        with slow_direction(converged_lab, "te1", "te4"):
            found = smoke(converged_lab, "--quick")
    finally:
        converged_lab.run("te2", "cat /etc/hosts.kept > /etc/hosts; rm /etc/hosts.kept")

    assert found.returncode == 1, found.printed
    assert set(failed(found.result)) == {("host.names", "te2"), ("sockets.bandwidth", "te1 -> te4")}


def test_packets_that_do_not_pass_whole_are_named_where_the_stream_stalls(
    converged_lab: LabUnderTest,
) -> None:
    large = f"ip saddr {converged_lab.address('te1')} meta length gt 1200"
    with firewall(converged_lab, "te2", f"{large} tcp dport gt 1023 drop", f"{large} udp dport gt 1023 drop"):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert ("sockets.path-mtu", "te1 -> te2") in failed(found.result)
    assert all(where == "te1 -> te2" for _, where in failed(found.result))


def test_a_lossy_direction_is_named_with_what_was_sent_again(converged_lab: LabUnderTest) -> None:
    # Only what carries data: lost acknowledgements would slow the other direction down as well.
    data = f"ip saddr {converged_lab.address('te4')} meta length gt 200"
    loses = f"{data} numgen random mod 100 lt 10 drop"
    with firewall(converged_lab, "te2", loses):
        found = smoke(converged_lab, "--quick")

    assert found.returncode == 1, found.printed
    assert ("sockets.bandwidth", "te4 -> te2") in failed(found.result)
    assert {where for _, where in failed(found.result)} <= {"te4 -> te2", "te2 <-> te4"}
    assert "segments were sent again" in found.told()
