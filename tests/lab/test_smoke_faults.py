"""The smoke test on real nodes: it passes when they are well, and names the one that is not."""

from __future__ import annotations

import threading
import time

import pytest

from tests.lab.conftest import LabUnderTest
from tests.lab.jobs import (
    ALL_BUT_SSH,
    cut_off,
    firewall,
    nothing_left,
    python,
    smoke,
    wait_for_ssh,
    wait_until,
)

STEP_SECONDS = 10
SHORT = ("--max-bytes", "65536", "--timeout", str(STEP_SECONDS))
THREE = ("--include", "te1@te2@te3")  # one that is struck and two that wait for it
WORKING = 'grep -qs "\\"begin\\", \\"operation\\": 2" /tmp/clusterwright-smoke-*/logs/rank2.log'


@pytest.fixture(autouse=True)
def no_old_logs(converged_lab: LabUnderTest) -> None:
    """A test that fails keeps its logs on the nodes; the next one looks for its own."""
    converged_lab.out_of_all("rm -rf /tmp/clusterwright-smoke-*")


# In the gate site.yml proves four nodes, and tests/distributed/test_smoke.py checks every operation.
@pytest.mark.long
def test_healthy_nodes_pass_and_leave_nothing(converged_lab: LabUnderTest) -> None:
    passed = smoke(converged_lab)

    assert passed.returncode == 0, passed.printed
    assert passed.result["verdict"] == "pass"
    assert [node["name"] for node in passed.result["nodes"]] == converged_lab.nodes
    assert {node["interface"] for node in passed.result["nodes"]} == {"eth0"}
    # What the time for the sweep does not suffice for is left out, from some size on.
    assert all(op["done"] != bool(op["left_out"]) for op in passed.result["operations"])
    assert not any(op["wrong_ranks"] for op in passed.result["operations"])
    assert all(op["done"] for op in passed.result["operations"] if op["size"] <= 4 << 20)
    assert passed.result["operations"][-2]["size"] == 1 << 30
    assert passed.result["operations"][-1]["step"] == "training"
    assert nothing_left(converged_lab)
    assert converged_lab.out_of_all("ls -d /tmp/clusterwright-smoke-* 2>/dev/null | wc -l") == ["0"] * 4


@pytest.mark.measures
def test_a_firewall_that_lets_only_ssh_through_is_found_before_torch_starts(
    converged_lab: LabUnderTest,
) -> None:
    with firewall(converged_lab, "te3", *ALL_BUT_SSH):
        failed = smoke(converged_lab, *SHORT)

    assert failed.returncode == 1, failed.printed
    assert "te3 (rank 2): te1, te2, te4 cannot reach its ports" in failed.told()
    assert failed.seconds < STEP_SECONDS + 2


def test_a_link_that_drops_is_named_by_its_two_ends(converged_lab: LabUnderTest) -> None:
    with firewall(converged_lab, "te2", "ip saddr " + converged_lab.address("te4") + " drop"):
        failed = smoke(converged_lab, *SHORT)

    assert failed.returncode == 1, failed.printed
    named = {(tuple(f["hosts"]), f["found"].split(": ")[1]) for f in failed.result["findings"]}
    assert named == {(("te2",), "cannot reach te4"), (("te4",), "cannot reach te2")}


@pytest.mark.measures
def test_a_node_cut_off_entirely_is_named(converged_lab: LabUnderTest) -> None:
    cut_off(converged_lab, "te3", 25)

    failed = smoke(converged_lab, *SHORT)

    wait_for_ssh(converged_lab, "te3")
    assert failed.returncode == 1, failed.printed
    assert "te3 (rank 2): unreachable" in failed.told()
    assert failed.seconds < STEP_SECONDS + 2


def test_a_node_that_answers_late_is_measured_with_the_others(converged_lab: LabUnderTest) -> None:
    cut_off(converged_lab, "te3", 6)

    passed = smoke(converged_lab, *SHORT, "--quick")

    assert passed.returncode == 0, passed.printed
    assert passed.seconds > 6
    measured = {(pair["source"], pair["target"]) for pair in passed.result["pairs"] if pair["bytes_per_s"]}
    assert len(measured) == 12


@pytest.mark.measures
def test_a_node_that_is_off_is_named(converged_lab: LabUnderTest) -> None:
    converged_lab.power_off("te4")
    try:
        failed = smoke(converged_lab, *SHORT)
    finally:
        converged_lab.power_on("te4")

    assert failed.returncode == 1, failed.printed
    assert "te4 (rank 3): unreachable" in failed.told()
    assert failed.seconds < STEP_SECONDS + 2


@pytest.mark.measures
def test_another_version_of_torch_is_named(converged_lab: LabUnderTest) -> None:
    find = f"{python(converged_lab)} -P -c 'import importlib.util as u; print(u.find_spec(\"torch\").origin)'"
    version = converged_lab.out("te2", f"dirname $({find})") + "/version.py"
    converged_lab.run("te2", f"sed 's/^__version__ = .*/__version__ = \"2.5.0\"/' {version} > {version}.new")
    converged_lab.run("te2", f"mv {version} {version}.kept && mv {version}.new {version}")
    try:
        failed = smoke(converged_lab, *SHORT)
    finally:
        converged_lab.run("te2", f"mv {version}.kept {version}")

    assert failed.returncode == 1, failed.printed
    assert "te2 (rank 1): has torch 2.5.0, against" in failed.told()
    assert failed.seconds < STEP_SECONDS + 2


def test_a_name_that_means_the_node_itself_is_found(converged_lab: LabUnderTest) -> None:
    converged_lab.run("te2", "cp /etc/hosts /etc/hosts.kept; sed -i '1i 127.0.1.1 te1' /etc/hosts")
    try:
        failed = smoke(converged_lab, *SHORT)
    finally:
        converged_lab.run("te2", "cat /etc/hosts.kept > /etc/hosts; rm /etc/hosts.kept")

    assert failed.returncode == 1, failed.printed
    assert "te2 (rank 1): resolves te1 to 127.0.1.1" in failed.told()


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        pytest.param("STOP", "rank 2 on te3 has said nothing", id="stopped"),
        # One that is killed ends a job in test_first_job.
        pytest.param("KILL", "rank 2 on te3 was ended by SIGKILL", id="killed", marks=pytest.mark.long),
    ],
)
@pytest.mark.measures
def test_a_rank_that_drops_out_on_the_way_is_named(
    converged_lab: LabUnderTest, signal: str, words: str
) -> None:
    struck: list[float] = []

    def strike() -> None:
        wait_until(converged_lab, "te3", WORKING)
        worker = "^[^ ]*python -P -u -m runtime smoke --sizes"
        converged_lab.run("te3", f"pkill -{signal} -f -- '{worker}'")
        struck.append(time.time())

    striker = threading.Thread(target=strike)
    striker.start()
    failed = smoke(converged_lab, "--timeout", str(STEP_SECONDS), *THREE)
    striker.join()

    assert failed.returncode == 1, failed.printed
    assert words in failed.told()
    assert {tuple(finding["ranks"]) for finding in failed.result["findings"]} == {(2,)}
    assert failed.written_at - struck[0] < STEP_SECONDS + 2
    assert nothing_left(converged_lab)


def test_a_network_that_breaks_on_the_way_is_named(converged_lab: LabUnderTest) -> None:
    def strike() -> None:
        wait_until(converged_lab, "te3", WORKING)
        with firewall(converged_lab, "te3", *ALL_BUT_SSH):
            wait_until(converged_lab, "te1", "test -e /tmp/smoke.json", 60)

    striker = threading.Thread(target=strike)
    striker.start()
    failed = smoke(converged_lab, "--timeout", str(STEP_SECONDS), *THREE)
    striker.join()

    assert failed.returncode == 1, failed.printed
    assert "te3 (rank 2): te1, te2 cannot reach its ports" in failed.told()
    assert nothing_left(converged_lab)
