"""The interface is the one that holds the address, by its exact name."""

from __future__ import annotations

import pytest

from provision.errors import ProvisionError
from provision.roles.network_interface import interface_carrying


def link(name: str, *addresses: str, flags: tuple[str, ...] = ("UP",)) -> dict[str, object]:
    return {"ifname": name, "flags": list(flags), "addr_info": [{"local": address} for address in addresses]}


LINKS = [
    link("lo", "127.0.0.1", flags=("UP", "LOOPBACK")),
    link("eth1", "10.0.0.5"),
    link("eth10@if7", "172.18.0.9", "10.77.0.11"),
    link("ib0", "10.8.0.1", flags=()),
]


def test_the_interface_that_carries_the_address_is_chosen() -> None:
    assert interface_carrying("10.77.0.11", LINKS) == "eth10"


@pytest.mark.parametrize(
    ("address", "wanted", "words"),
    [
        ("10.77.0.12", "", "eth1 has 10.0.0.5; eth10 has 172.18.0.9 10.77.0.11"),
        ("10.77.0.11", "eth1", "eth10 carries it, cluster_interface says eth1"),
        ("10.8.0.1", "", "ib0 carries it but is down"),
        ("127.0.0.1", "", "lo carries it but is loopback"),
    ],
)
def test_anything_else_is_refused_with_what_was_found(address: str, wanted: str, words: str) -> None:
    with pytest.raises(ProvisionError, match=words):
        interface_carrying(address, LINKS, wanted=wanted)
