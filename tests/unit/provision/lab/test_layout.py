from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import BadInput
from provision.lab.layout import Lab, cores_of, folder_of, lay_out


def lab(name: str = "lab", subnet: str = "10.77.0.0/24", count: int = 4, disk_bytes: int = 1 << 30) -> Lab:
    return lay_out(name=name, subnet=subnet, count=count, disk_bytes=disk_bytes, base=Path("/cache/root"))


def test_node_i_has_the_address_10_plus_i_and_the_controller_has_1() -> None:
    found = lab()

    assert found.gateway == "10.77.0.1"
    assert [(node.name, node.address) for node in found.nodes] == [
        ("te1", "10.77.0.11"),
        ("te2", "10.77.0.12"),
        ("te3", "10.77.0.13"),
        ("te4", "10.77.0.14"),
    ]


def test_links_of_the_longest_names_are_names_that_the_kernel_takes() -> None:
    found = lab(name="abcdefgh", count=64)

    assert found.bridge == "cwabcdefgh"
    assert max(len(node.link) for node in found.nodes) == 15


def test_no_two_nodes_or_bridges_share_a_mac_a_link_or_a_serial() -> None:
    labs = [lab(name="lab", count=64), lab(name="test", count=64), lab(name="lab1", count=64)]
    nodes = [node for each in labs for node in each.nodes]

    macs = [node.mac for node in nodes] + [each.mac for each in labs]

    assert len(set(macs)) == len(macs)
    assert len({node.link for node in nodes}) == len(nodes)
    assert len({node.serial for node in nodes}) == len(nodes)


def test_a_mac_is_locally_administered_and_stays_the_same() -> None:
    assert lab().nodes[0].mac == lab().nodes[0].mac
    assert all(node.mac.startswith("02:") and len(node.mac) == 17 for node in lab().nodes)


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "la-b", "la b", "abcdefghi", "../x", "$(id)", "lab\n"])
def test_a_name_that_no_link_can_have_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="1 to 8 characters"):
        folder_of(name)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"count": 0}, "1 to 64 nodes"),
        ({"count": 65}, "1 to 64 nodes"),
        ({"disk_bytes": 0}, "smaller than 1 MiB"),
        ({"subnet": "10.77.0.1/24"}, "host bits set"),
        ({"subnet": "fd00::/64"}, "fd00"),
        ({"subnet": "rubbish"}, "rubbish"),
        ({"subnet": "10.77.0.0/28", "count": 5}, "too small"),
    ],
)
def test_a_lab_that_cannot_be_is_refused_with_the_reason(asked: dict[str, object], found: str) -> None:
    with pytest.raises(BadInput) as refused:
        lab(**asked)  # type: ignore[arg-type]

    assert found in str(refused.value)


def test_the_smallest_network_holds_exactly_the_nodes_that_fit() -> None:
    assert lab(subnet="10.77.0.0/28", count=4).nodes[-1].address == "10.77.0.14"


@pytest.mark.parametrize(
    ("count", "available", "expected"),
    [
        (4, [0, 1], [(0,), (1,), (0,), (1,)]),
        (2, [0, 1, 2, 3, 4], [(0, 1), (2, 3)]),
        (2, [7, 5], [(5,), (7,)]),
        (3, [3], [(3,), (3,), (3,)]),
    ],
)
def test_nodes_share_the_processors_without_taking_each_others(
    count: int, available: list[int], expected: list[tuple[int, ...]]
) -> None:
    found = lab(count=count)

    assert [cores_of(found, node, available) for node in found.nodes] == expected
