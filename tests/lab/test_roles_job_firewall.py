"""The role job_firewall on blank nodes: who is cut off, who is not, and what brings it back."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.conftest import Finished, LabUnderTest, changed, playbook

# The first test of the module waits for four playbooks as well, on a machine that may be busy.
pytestmark = pytest.mark.timeout(1200)

TABLE = "nft list table inet clusterwright"
UNIT = "clusterwright-job-firewall"
# A person's own rules, and services: in the range of jobs, and where notebooks are.
THEIRS = "nft add table inet theirs && nft add chain inet theirs c"
SERVE = "for port in 8888 40000; do systemd-run --quiet --unit=serve-$port python3 -m http.server $port; done"
LISTENS = "until [ $(ss -ltn | grep -c -e :8888 -e :40000) = 2 ]; do sleep 0.1; done"

LEFT = "nft list tables; find /usr/local/lib /etc/systemd -name '*job*firewall*'"
OFF = ("--extra-vars", '{"job_firewall_enabled": false}')


def fenced(lab: LabUnderTest, *words: str, check: bool = True) -> Finished:
    return playbook(lab, "--tags", "job_user,job_firewall", *words, check=check)


def opened(*ports: str) -> tuple[str, str]:
    return "--extra-vars", json.dumps({"job_firewall_open_ports": ports})


def reaches(address: str, port: int) -> str:
    """What this machine, which is no node, gets."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError as e:
        return e.strerror or str(e)
    return "connected"


@pytest.fixture(scope="module")
def fenced_lab(spare_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """Blank nodes with a person's rules and services, then the role, told of the service in its range."""
    spare_lab.reset()
    spare_lab.out_of_all(f"{THEIRS}; {SERVE}; {LISTENS}")
    refused = fenced(spare_lab, check=False)
    assert refused.returncode != 0
    assert "python3 on port 40000 would be reached by the cluster's nodes only" in refused.stdout
    assert spare_lab.run("te1", TABLE, check=False).returncode != 0
    fenced(spare_lab, *opened("40000"))
    yield spare_lab
    spare_lab.reset()


def test_a_second_run_changes_nothing(fenced_lab: LabUnderTest) -> None:
    assert changed(fenced(fenced_lab, *opened("40000"))) == {"te1": 0, "te2": 0}


def test_check_mode_sees_rules_that_are_gone_and_leaves_them_so(fenced_lab: LabUnderTest) -> None:
    fenced_lab.run("te1", "nft delete table inet clusterwright")

    fenced(fenced_lab, *opened("40000"), "--check")
    still_gone = fenced_lab.run("te1", TABLE, check=False).returncode != 0
    after = changed(fenced(fenced_lab, *opened("40000")))

    assert still_gone
    assert after == {"te1": 1, "te2": 0}


def test_only_what_jobs_use_is_closed_and_only_for_strangers(fenced_lab: LabUnderTest) -> None:
    address = fenced_lab.address("te1")
    fenced_lab.run("te1", "systemd-run --quiet --unit=job python3 -m http.server 40001")
    fenced_lab.run("te1", "until ss -ltn | grep -q :40001; do sleep 0.1; done")

    got = {port: reaches(address, port) for port in (22, 8888, 40000, 40001)}
    peer = fenced_lab.run("te2", f"timeout 2 bash -c '</dev/tcp/{address}/40001'", check=False)
    loopback = "runuser -u nobody -- timeout 2 bash -c '</dev/tcp/127.0.0.1/40001'"

    assert got == {22: "connected", 8888: "connected", 40000: "connected", 40001: "No route to host"}
    assert peer.returncode == 0
    assert fenced_lab.run("te1", loopback, check=False).returncode == 0
    fenced_lab.run("te1", "systemctl stop job")


def test_what_runs_over_a_connection_that_is_open_goes_on(fenced_lab: LabUnderTest) -> None:
    """From a port of the range outwards, opened before the rules were there."""
    with socket.create_server((fenced_lab.lab.gateway, 0)) as server:
        fenced_lab.run("te1", "systemctl stop clusterwright-job-firewall")
        where = f"{fenced_lab.lab.gateway}/{server.getsockname()[1]}"
        talk = f"exec 3<>/dev/tcp/{where}; head -1 <&3 >/tmp/heard"
        fenced_lab.run("te1", f"systemd-run --quiet --unit=talk bash -c '{talk}'")
        connection, _ = server.accept()
        with connection:
            fenced_lab.run("te1", "systemctl start clusterwright-job-firewall")
            connection.sendall(b"still here\n")
            fenced_lab.run("te1", "until grep -q 'still here' /tmp/heard; do sleep 0.1; done")


def test_a_reboot_brings_it_back(fenced_lab: LabUnderTest) -> None:
    fenced_lab.reboot("te2")

    assert "elements = { 29500, 32768-60999 }" in fenced_lab.out("te2", TABLE)


def test_it_outlives_a_reload_that_flushes_everything_and_touches_no_other_table(
    fenced_lab: LabUnderTest,
) -> None:
    assert "table inet theirs" in fenced_lab.out("te1", "nft list tables")
    fenced_lab.run("te1", "systemctl start nftables; systemctl reload nftables; sleep 1")

    tables = fenced_lab.out("te1", "nft list tables")

    assert "table inet theirs" not in tables  # The site's own reload flushed it.
    assert "table inet clusterwright" in tables


def test_a_table_of_that_name_that_is_somebody_s_is_refused(fenced_lab: LabUnderTest) -> None:
    fenced_lab.reset("te2")
    fenced_lab.run("te2", "nft add table inet clusterwright; nft add chain inet clusterwright precious")

    refused = fenced(fenced_lab, *opened("40000"), check=False)

    assert "te2: there is a table inet clusterwright that this role has not made" in refused.stdout
    assert "precious" in fenced_lab.out("te2", TABLE)
    fenced_lab.run("te2", "nft delete table inet clusterwright")
    fenced(fenced_lab, *opened("40000"))


# In the gate a teardown takes it off (below).
@pytest.mark.long
def test_switched_off_it_is_gone(fenced_lab: LabUnderTest) -> None:
    fenced(fenced_lab, *OFF)
    left = fenced_lab.out("te1", LEFT)
    again = changed(fenced(fenced_lab, *OFF))
    fenced(fenced_lab, *opened("40000"))

    assert "clusterwright" not in left
    assert again == {"te1": 0, "te2": 0}


def test_a_teardown_takes_it_off(fenced_lab: LabUnderTest) -> None:
    confirmed = f"teardown_confirm={fenced_lab.name}"
    playbook(fenced_lab, "playbooks/teardown.yml", "--extra-vars", confirmed)

    found = fenced_lab.out("te1", LEFT)

    assert "clusterwright" not in found


def test_the_machine_of_the_tests_is_no_node(fenced_lab: LabUnderTest) -> None:
    """Else none of the above says anything."""
    listed = subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True).stdout

    assert fenced_lab.lab.gateway in listed
    assert fenced_lab.lab.gateway not in {node.address for node in fenced_lab.lab.nodes}
