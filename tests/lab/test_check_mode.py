"""Check mode on machines that have nothing yet."""

from __future__ import annotations

from tests.lab.conftest import LabUnderTest, playbook, recap
from tests.lab.test_site import FINGERPRINT


def test_check_mode_on_fresh_nodes_does_not_fail_and_changes_nothing(
    mirror: None, spare_lab: LabUnderTest
) -> None:
    spare_lab.reset()
    before = {node: spare_lab.out(node, FINGERPRINT) for node in spare_lab.nodes}

    run = playbook(spare_lab, "--check", "--diff")

    assert all(counts["failed"] == counts["unreachable"] == 0 for counts in recap(run).values())
    assert {node: spare_lab.out(node, FINGERPRINT) for node in spare_lab.nodes} == before
    assert not (spare_lab.lab.folder / "secrets").exists()
