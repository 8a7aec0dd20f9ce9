"""The doctor and the smoke test on a cluster that is up: faults that site.yml's work can have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from junitparser import JUnitXml
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.conftest import LabUnderTest, provision

STATE = (
    # A test that fails takes the certificate of those that it names.
    "sha256sum /etc/hosts $(ls /etc/clusterwright/* | grep -v certificate)"
    " /data/miniconda3/envs/*/lib/python3*/site-packages/torch/{version,functional}.py;"
    " ls -A /data /var/lib/clusterwright-fault 2>/dev/null; ip -brief link"
)


@contextmanager
def fault(lab: LabUnderTest, *words: str) -> Iterator[None]:
    """The fault until the end of the block; then the node is as before."""
    before = lab.out("te2", f"bash -c '{STATE}'")
    lab.provision("fault", "inject", *words)
    try:
        yield
    finally:
        lab.provision("fault", "clear")
    assert lab.out("te2", f"bash -c '{STATE}'") == before


def examined(lab: LabUnderTest) -> list[dict[str, Any]]:
    told = provision("doctor", "-i", str(lab.inventory), "--json", check=False)
    found: list[dict[str, Any]] = json.loads(told.stdout)
    assert told.returncode == (1 if found else 0), told.stderr
    return found


def test_a_healthy_cluster_has_nothing(converged_lab: LabUnderTest) -> None:
    assert examined(converged_lab) == []


@pytest.mark.parametrize(
    ("words", "row", "says"),
    [
        ("loopback-name te2", "loopback-name", "te2 is 127.0.1.1 there"),
        ("wrong-hosts te2 te3", "wrong-name", "te3 is 10.77."),
        ("other-torch te2", "odd-node", "torch differs: 2.5.0 against"),
        ("other-digest te2", "odd-node", "environment digest differs: 0000"),
        ("disk-full te2", "disk-full", "/data has"),
        ("wrong-interface te2", "wrong-interface", "jobs use docker0"),
        ("host-key-changed te2", "unreachable", ""),
        ("link-down te2", "unreachable", ""),
    ],
)
def test_the_doctor_names_the_node_at_fault(
    converged_lab: LabUnderTest, words: str, row: str, says: str
) -> None:
    with fault(converged_lab, *words.split()):
        found = examined(converged_lab)

    assert {one["where"] for one in found} == {"te2"}
    assert any(one["row"] == row and says in one["evidence"] for one in found)


def test_a_changed_file_is_changed_and_comes_back(converged_lab: LabUnderTest) -> None:
    verify = "python3 /usr/local/lib/clusterwright/environment_digest.py --verify --full --prefix "
    prefix = json.loads(converged_lab.out("te2", "cat /etc/clusterwright/environment.json"))["prefix"]

    with fault(converged_lab, "changed-file", "te2"):  # which compares the file before and after
        changed = converged_lab.run("te2", verify + prefix, check=False)

    assert "torch/functional.py" in changed.stdout


def test_the_smoke_test_runs_from_the_controller(converged_lab: LabUnderTest, tmp_path: Any) -> None:
    words = (
        "smoke",
        "-i",
        str(converged_lab.inventory),
        "--max-bytes",
        "65536",
        "--json",
        str(tmp_path / "r"),
    )

    passed = provision(*words, *("--junit", f"{tmp_path}/j", "--prometheus", f"{tmp_path}/p"))
    with fault(converged_lab, "firewall-all", "te2"):
        failed = provision(*words, "--timeout", "10", check=False)

    assert "PASS" in passed.stdout
    (suite,) = JUnitXml.fromfile(str(tmp_path / "j"))
    assert (suite.failures, suite.errors) == (0, 0)
    gauges = text_string_to_metric_families((tmp_path / "p").read_text())
    assert sum(gauge.name == "clusterwright_smoke_pair_bytes_per_second" for gauge in gauges) == 1
    assert failed.returncode == 1
    converged_lab.run("te2", "test ! -e /etc/clusterwright/certificate.json")
    findings = json.loads((tmp_path / "r").read_text())["findings"]
    assert {host for finding in findings for host in finding["hosts"]} == {"te2"}
    assert all("rows" in finding for finding in findings)


# What the smoke test says of each fault test_smoke_faults and test_smoke_network ask of it without the drill.
@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("firewall-peer",), ("--quick",)),
        pytest.param(
            ("rank-killed", "firewall-all", "other-torch"), ("--max-bytes", "65536"), marks=pytest.mark.long
        ),
    ],
    ids=str,
)
def test_the_drill_names_faults_and_leaves_the_lab_well(
    converged_lab: LabUnderTest, kinds: tuple[str, ...], words: tuple[str, ...]
) -> None:
    chosen = [word for kind in kinds for word in ("--fault", kind)]

    drilled = provision(
        *("smoke", "--drill", "--name", converged_lab.name, *words, "--timeout", "10"),
        *chosen,
    )

    assert f"every fault was named: {len(kinds)} of {len(kinds)}" in drilled.stdout
    assert json.loads(converged_lab.provision("fault", "list", "--json").stdout)["active"] == []
