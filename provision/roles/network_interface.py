"""The network interface that carries a node's address in the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from provision.errors import ProvisionError


def interface_carrying(address: str, links: Sequence[Mapping[str, Any]], *, wanted: str = "") -> str:
    """The name of the interface that holds `address`.

    Args:
        links: what `ip -json address` prints.
        wanted: the interface that the inventory names; "" leaves the choice to the address.

    Raises:
        ProvisionError: no interface holds it, another one than `wanted` does, or it is down or loopback.
    """
    asked = f"find the interface that carries {address}"
    held = {_name(link): _addresses(link) for link in links}
    carriers = [link for link in links if address in _addresses(link)]
    if not carriers:
        raise ProvisionError(
            asked,
            found="; ".join(f"{name} has {' '.join(values) or 'none'}" for name, values in held.items()),
            fix="Set cluster_address of this node to an address that it has.",
        )
    link = carriers[0]
    if wanted not in ("", _name(link)):
        raise ProvisionError(
            asked,
            found=f"{_name(link)} carries it, cluster_interface says {wanted}",
            fix="Correct cluster_interface, or leave it empty.",
        )
    flags = link.get("flags", [])
    if "UP" not in flags or "LOOPBACK" in flags:
        raise ProvisionError(
            asked,
            found=f"{_name(link)} carries it but is {'loopback' if 'LOOPBACK' in flags else 'down'}",
            fix="Give the node an address that its peers can reach.",
        )
    return _name(link)


def _name(link: Mapping[str, Any]) -> str:
    return str(link["ifname"]).split("@")[0]


def _addresses(link: Mapping[str, Any]) -> list[str]:
    return [str(entry.get("local")) for entry in link.get("addr_info", [])]
