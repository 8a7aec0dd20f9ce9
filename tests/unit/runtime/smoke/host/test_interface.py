"""Which interface jobs use on each node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.probes.host import Survey
from runtime.smoke.host.registry import judge
from tests.unit.runtime.smoke.host.cluster import NAMES, healthy, nodes


def every_job_on(interface: str, *addresses: str) -> dict[str, Survey]:
    return {
        host: replace(healthy(host), job_interface=interface, job_address=address)
        for host, address in zip(NAMES, addresses, strict=True)
    }


def test_a_bridge_that_every_node_has_for_itself_is_named_on_each() -> None:
    said = judge(nodes(every_job_on("docker0", *["172.17.0.1/16"] * 4)))

    assert [(one.check, one.hosts) for one in said] == [("interface", (host,)) for host in NAMES]
    assert "172.17.0.1/16 te2, te3, te4 has as well" in said[0].found


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/24", "10.1.0.4/24"),
        ("10.1.0.1/32", "10.1.0.2/32", "10.1.0.3/32", "10.1.0.4/32"),
    ],
)
def test_a_second_network_for_data_routed_or_not_is_left_alone(addresses: tuple[str, ...]) -> None:
    assert judge(nodes(every_job_on("eth1", *addresses))) == ()
