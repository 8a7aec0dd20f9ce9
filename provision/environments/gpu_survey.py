"""What a node can run by its cards and its driver, from what was observed there. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from provision.environments.kinds import Node, Table
from provision.roles.gpu_driver import Card, GpuVerdict, gpus_on_bus, judge, shown, version_of

_NUMBER = re.compile(r"0x[0-9a-fA-F]{4}")

Texts = Mapping[str, str]


def surveyed(
    name: str, files: Texts, table: Table, *, smi_rc: int, smi_output: str, installs: str = ""
) -> Node:
    """A node as `choose` wants it.

    Args:
        files: texts of what is below /sys/bus/pci/devices and /sys/module.
        installs: the driver that site.yml installs on nodes with cards, a branch or a version; "" for none.
    """
    verdict = judge(files, smi_rc=smi_rc, smi_output=smi_output, cuda="", minimum_drivers={})
    if verdict.gpus == 0:
        seen = len([driver for driver, _ in shown(smi_output) if version_of(driver)]) if smi_rc == 0 else 0
        lost = f"nvidia-smi shows {seen} cards, and the PCI bus has none of them"
        return Node(name=name, problem=lost if seen else "")
    if installs and not f"{verdict.driver}.".startswith(f"{installs}."):
        return Node(name=name, driver=installs, cards=_cards(verdict, files, table), will_have=True)
    if verdict.problem:
        return Node(name=name, problem=f"{verdict.found}; {verdict.problem}")
    return Node(name=name, driver=verdict.driver, cards=_cards(verdict, files, table))


def _cards(verdict: GpuVerdict, files: Texts, table: Table) -> list[Card]:
    """As the driver shows them; where it shows none, or not what they compute as, by their PCI numbers."""
    known = [
        _by_number(files.get(f"/sys/bus/pci/devices/{at}/device", ""), table) for at in gpus_on_bus(files)
    ]
    if verdict.problem:
        return known
    pairs = zip(verdict.cards, known, strict=False)
    return [
        Card(name=card.name or by.name, capability=card.capability or by.capability) for card, by in pairs
    ]


def _by_number(text: str, table: Table) -> Card:
    if not _NUMBER.fullmatch(text.strip()):
        return Card(name="a card without a PCI number", capability="")
    number = int(text, 16)
    return Card(name=f"10de:{number:04x}", capability=table.capability(number))
