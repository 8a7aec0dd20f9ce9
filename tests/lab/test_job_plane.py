"""The smoke test tries the fence around jobs, and who is a node passes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import CERTIFICATE, LabUnderTest, as_first_proven, playbook
from tests.lab.jobs import Smoke, smoke

PAIR = ("--include", "te1@te2")


def strangers(found: Smoke) -> dict[str, Any]:
    (check,) = (check for check in found.result["checks"] if check["id"] == "sockets.strangers")
    return dict(check)


def test_the_smoke_test_tries_to_get_in_and_says_so(converged_lab: LabUnderTest) -> None:
    found = smoke(converged_lab, "--quick")

    assert strangers(found)["verdict"] == "pass", found.printed
    assert "a user without rights was refused" in strangers(found)["evidence"]


@pytest.mark.parametrize(
    ("breach", "words"),
    [
        ("nft delete table inet clusterwright", "a user without rights there connects to"),
        ("nft flush chain inet clusterwright output", "a user without rights there connects to"),
        ("nft flush chain inet clusterwright input", "its chains input judge nothing"),
        ("nft add element inet clusterwright nodes '{ 10.99.99.99 }'", "10.99.99.99 is none"),
    ],
)
def test_the_smoke_test_names_the_node_whose_firewall_has_a_hole(
    converged_lab: LabUnderTest, breach: str, words: str
) -> None:
    # Its certificate is taken from it, which it needs for what other modules do with the same nodes.
    as_first_proven(converged_lab).run("te2", f"cp -p {CERTIFICATE} /root/certificate.json; {breach}")
    try:
        found = smoke(converged_lab, "--quick", *PAIR)
        taken = converged_lab.run("te2", f"test ! -e {CERTIFICATE}", check=False).returncode == 0
    finally:
        converged_lab.run("te2", "systemctl reload clusterwright-job-firewall")
        converged_lab.run("te2", f"mv /root/certificate.json {CERTIFICATE}")

    assert found.returncode == 1, found.printed
    assert strangers(found)["verdict"] == "fail"
    assert strangers(found)["where"] == "te2"
    assert taken
    assert words in strangers(found)["evidence"]


def test_where_the_firewall_is_off_the_smoke_test_skips_it_with_the_reason(
    converged_lab: LabUnderTest,
) -> None:
    rules = "/usr/local/lib/clusterwright/job_firewall.nft"
    converged_lab.out_of_all(f"systemctl stop clusterwright-job-firewall; mv {rules} {rules}.off")
    try:
        found = smoke(converged_lab, "--quick", *PAIR)
    finally:
        converged_lab.out_of_all(f"mv {rules}.off {rules}; systemctl start clusterwright-job-firewall")

    assert strangers(found)["verdict"] == "skipped"
    assert "no firewall on any node" in strangers(found)["evidence"]


def test_the_members_of_the_firewall_follow_those_of_the_cluster(
    converged_lab: LabUnderTest, tmp_path: Path
) -> None:
    more = tmp_path / "more.yml"
    more.write_text("cluster:\n  hosts:\n    te9: {ansible_host: 10.77.182.99}\n")
    known = "nft list set inet clusterwright nodes"
    limit = ("playbooks/members.yml", "--limit", "te1,te2,localhost")

    playbook(converged_lab, *limit, "-i", str(more))
    with_it = converged_lab.out("te1", known)
    playbook(converged_lab, *limit)

    assert "10.77.182.99" in with_it
    assert "10.77.182.99" not in converged_lab.out("te1", known)
