"""Cables between the nodes, and their limits."""

from __future__ import annotations

import pytest

from tests.lab.conftest import LabUnderTest

# One node listens, counts and times what comes after the first burst; another one sends for a while.
RECEIVE = """python3 -c '
import socket, time
s = socket.create_server(("", 5001)); c, _ = s.accept()
for _ in range(64): c.recv(1 << 14)
started = time.monotonic(); n = 0
while d := c.recv(1 << 20): n += len(d)
print(n * 8 / 1e6 / (time.monotonic() - started))'"""
SEND = """python3 -c '
import socket, time
for i in range(300):
    try: c = socket.create_connection(("{address}", 5001)); break
    except OSError: time.sleep(0.1)
end = time.monotonic() + 3; block = bytes(1 << 16)
while time.monotonic() < end: c.sendall(block)
c.close()'"""


def megabits_per_second(lab: LabUnderTest, *, source: str, target: str) -> float:
    """What one TCP stream carries between two nodes, counted and timed where it arrives."""
    lab.run(target, f"rm -f /tmp/rate; nohup {RECEIVE} >/tmp/rate 2>&1 </dev/null &")
    lab.run(source, SEND.format(address=lab.address(target)))
    lab.run(target, "for i in $(seq 200); do test -s /tmp/rate && exit 0; sleep 0.05; done; exit 1")
    return float(lab.out(target, "cat /tmp/rate"))


@pytest.fixture
def unshaped(lab: LabUnderTest) -> LabUnderTest:
    for node in ("te1", "te2"):
        lab.provision("shape", node, "--clear")
    return lab


def test_every_node_reaches_every_node_and_the_controller(lab: LabUnderTest) -> None:
    addresses = [*(lab.address(node) for node in lab.nodes), lab.lab.gateway]

    answers = lab.out_of_all(
        "; ".join(f"ping -c1 -W2 -q {address} >/dev/null; echo $?" for address in addresses)
    )

    assert answers == ["\n".join(["0"] * 5)] * 4


def test_what_a_node_receives_is_limited_and_what_it_sends_is_not(unshaped: LabUnderTest) -> None:
    unshaped.provision("shape", "te2", "--rate", "50mbit", "--direction", "ingress")

    into = megabits_per_second(unshaped, source="te1", target="te2")
    out = megabits_per_second(unshaped, source="te2", target="te1")

    assert 25 < into < 55
    assert out > 2 * into


def test_what_a_node_sends_is_limited_and_what_it_receives_is_not(unshaped: LabUnderTest) -> None:
    unshaped.provision("shape", "te2", "--rate", "50mbit", "--direction", "egress")

    into = megabits_per_second(unshaped, source="te1", target="te2")
    out = megabits_per_second(unshaped, source="te2", target="te1")

    assert 25 < out < 55
    assert into > 2 * out


def test_limits_are_shown_survive_reboot_and_power_and_are_cleared(unshaped: LabUnderTest) -> None:
    unshaped.provision("shape", "te2", "--rate", "200mbit", "--direction", "ingress")
    unshaped.provision("shape", "te2", "--rate", "1gbit", "--direction", "egress")
    shown = [unshaped.status()["te2"]]
    unshaped.reboot("te2")
    shown.append(unshaped.status()["te2"])
    unshaped.power_off("te2")
    shown.append(unshaped.status()["te2"])
    unshaped.power_on("te2")
    shown.append(unshaped.status()["te2"])

    unshaped.provision("shape", "te2", "--clear")
    cleared = unshaped.status()["te2"]

    assert [(node["ingress"], node["egress"]) for node in shown] == [("200mbit", "1gbit")] * 4
    assert (cleared["ingress"], cleared["egress"]) == (None, None)


def test_a_rate_that_is_none_changes_nothing(unshaped: LabUnderTest) -> None:
    unshaped.provision("shape", "te2", "--rate", "200mbit")

    refused = unshaped.provision("shape", "te2", "--rate", "fast", check=False)

    assert refused.returncode == 2
    assert "200mbit or 1gbit" in refused.stderr
    assert unshaped.status()["te2"]["ingress"] == "200mbit"


def test_a_node_is_reached_at_once_after_a_cut_of_power(lab: LabUnderTest) -> None:
    lab.run("te1", f"ping -c1 -W1 -q {lab.address('te3')}")
    lab.power_off("te3")
    lab.power_on("te3")

    assert lab.run("te1", f"ping -c1 -W1 -q {lab.address('te3')}").returncode == 0
