"""A node waits for a reboot where a newer kernel of its kind is installed, or its packages say so."""

from __future__ import annotations

import pytest

from provision.roles.running_kernel import waiting_for_reboot


@pytest.mark.parametrize(
    ("running", "installed", "flag", "waits"),
    [
        ("6.1.0-18-amd64", ["6.1.0-18-amd64"], False, ""),
        ("6.1.0-9-amd64", ["6.1.0-9-amd64", "6.1.0-18-amd64"], False, "6.1.0-18-amd64 is installed"),
        ("6.1.0-18-amd64", ["6.1.0-18-amd64", "6.1.0-9-amd64"], False, ""),
        ("6.8.0-1015-aws", ["6.8.0-1015-aws", "6.8.0-45-generic"], False, ""),
        ("6.8.0-1015-aws", ["6.8.0-1015-aws", "6.8.0-1016-aws"], False, "6.8.0-1016-aws is installed"),
        ("6.8.0-1015-aws", ["6.8.0-1015-aws", "6.11.0-1004-aws"], False, "6.11.0-1004-aws is installed"),
        ("6.1.0-18-cloud-amd64", ["6.1.0-18-cloud-amd64", "6.1.0-20-amd64"], False, ""),
        ("6.1.0-18-amd64", ["6.1.0-18-amd64", "6.12.9+bpo-amd64"], False, ""),
        ("6.18.44-custom", [], False, ""),
        ("6.1.0-18-amd64", ["6.1.0-18-amd64"], True, "/run/reboot-required"),
    ],
)
def test_what_a_node_waits_for(running: str, installed: list[str], flag: bool, waits: str) -> None:
    kernels = [f"/boot/vmlinuz-{release}" for release in installed]

    said = waiting_for_reboot(running, kernels, is_required=flag)

    assert bool(said) is bool(waits)
    assert waits in said
