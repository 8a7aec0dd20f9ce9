from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.lab.fault import record
from provision.lab.fault.catalogue import fault_called
from provision.lab.fault.injection import is_init, refuse
from provision.lab.fault.record import Active
from provision.lab.layout import LabNode, lay_out

SLOW = Active(fault="slow-send", peer=None, value="50mbit")


@pytest.fixture
def node(tmp_path: Path) -> LabNode:
    lab = lay_out(
        name="lab", subnet="10.77.0.0/24", count=2, disk_bytes=1 << 30, base=Path("/b"), root=tmp_path
    )
    return lab.nodes[0]


def test_the_record_keeps_order_and_vanishes_with_the_last_fault(node: LabNode) -> None:
    peer = Active(fault="firewall-peer", peer="te2", value="")

    record.save(node, [SLOW, peer])

    assert record.load(node) == (SLOW, peer)
    record.save(node, [])
    assert not node.faults.exists()
    assert record.load(node) == ()


def test_a_damaged_record_is_named(node: LabNode) -> None:
    record.save(node, [SLOW])
    node.faults.write_text('[{"fault": "slow-send"}]')

    with pytest.raises(BadInput, match="it is damaged"):
        record.load(node)


@pytest.mark.parametrize(
    ("name", "peer", "present", "says"),
    [
        ("slow-send", None, [SLOW], "slow-send is there already"),
        ("slow-both", None, [SLOW], "slow-send is there already"),
        ("firewall-peer", None, [], "it needs a second node"),
        ("firewall-peer", "te1", [], "it needs a second node"),
        ("link-down", "te2", [], "it takes one node"),
    ],
)
def test_what_cannot_be_together_is_refused(
    node: LabNode, name: str, peer: str | None, present: list[Active], says: str
) -> None:
    fault = fault_called(name)
    wanted = Active(fault=name, peer=peer, value=fault.value_of(None))

    with pytest.raises(BadInput, match=says):
        refuse(fault, wanted, node, present)


def test_faults_of_two_directions_and_of_two_peers_go_together(node: LabNode) -> None:
    one = Active(fault="firewall-peer", peer="te2", value="")
    other = Active(fault="firewall-peer", peer="te3", value="")

    refuse(fault_called("slow-receive"), Active(fault="slow-receive", peer=None, value=""), node, [SLOW])
    refuse(fault_called("firewall-peer"), other, node, [one])


@pytest.mark.parametrize(
    ("ids", "expected"), [("29255\t14\t1", True), ("29247\t12\t2", False), ("29218\t1", False), ("77", False)]
)
def test_process_1_of_a_node_is_first_in_a_third_namespace(ids: str, expected: bool) -> None:
    assert is_init(f"Name:\tsystemd\nNSpid:\t{ids}\nThreads:\t1\n") is expected
