"""The first stage, judged for GPUs: what drivers say against their cards, and who is unlike others. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from runtime.probes.gpu import Gpu, Gpus
from runtime.probes.preflight_checks import odd_ones
from runtime.smoke.host.host_checks import Said

# Xid errors whose cause is the card, its memory, links or firmware, not a program (NVIDIA, Xid Errors).
_HARDWARE_XIDS = {
    48: "a memory error that was not corrected",
    61: "the card's micro-controller stopped",
    62: "the card's micro-controller halted",
    63: "a row of its memory was remapped",
    64: "a row of its memory could not be remapped",
    74: "an NVLink failed",
    79: "a card has fallen off the bus",
    92: "many memory errors were corrected",
    94: "a memory error that was contained",
    95: "a memory error that was not contained",
    119: "its firmware (GSP) did not answer",
    120: "its firmware (GSP) failed",
    140: "a memory error that was not recovered",
}
_HOT_CELSIUS = 90
_RESET = "Stop what uses it, then `nvidia-smi --gpu-reset` or reboot; if it comes back, take the node out."


def judge_gpus(nodes: Mapping[str, Gpus], slots: Mapping[str, int]) -> Iterator[Said]:
    """Everything that the drivers say; nothing where no node has one, which is a cluster of CPUs.

    Args:
        slots: how many ranks each node is to take.
    """
    if not any(seen.present for seen in nodes.values()):
        return
    for host, seen in nodes.items():
        yield from _driver(host, seen, slots[host])
        for card in seen.cards:
            yield from _card(host, card)
        yield from _xids(host, seen)
    drivers = {host: seen.driver for host, seen in nodes.items() if seen.driver}
    for check, host, found, fix in odd_ones("gpu driver", "has the NVIDIA driver", drivers):
        yield Said(check=check, host=host, found=found, fix=fix)
    yield from _unlike(nodes)


def _driver(host: str, seen: Gpus, slots: int) -> Iterator[Said]:
    if not seen.present:
        found = "it has no nvidia-smi, and other nodes do"
        yield Said(
            check="gpu count", host=host, found=found, fix="Install the NVIDIA driver there, or exclude it."
        )
    elif seen.problem:
        fix = "See `dmesg | grep -i nvrm` and `nvidia-smi` there; reboot after an update of kernel or driver."
        yield Said(check="gpu driver", host=host, found=f"nvidia-smi fails: {seen.problem}", fix=fix)
    elif len(seen.cards) < slots:
        found = f"it has {len(seen.cards)} GPUs for {slots} slots"
        fix = "See `lspci -d 10de:` and `nvidia-smi -L` there, or give it fewer slots in the inventory."
        yield Said(check="gpu count", host=host, found=found, fix=fix)


def _card(host: str, card: Gpu) -> Iterator[Said]:
    which = f"GPU {card.bus} ({card.name})"
    if card.uncorrected:
        found = f"{which} had {card.uncorrected} memory errors that were not corrected"
        yield Said(check="gpu errors", host=host, found=found, fix=_RESET)
    if card.remapping:
        found = f"{which}: the remapping of a bad row of its memory {_REMAPPING[card.remapping]}"
        yield Said(check="gpu errors", host=host, found=found, fix=_RESET)
    if card.slowed_by:
        found = f"{which} is slowed down: {', '.join(card.slowed_by)}"
        fix = "See `nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER` there: cooling, power cable, power brake."
        yield Said(check="gpu clocks", host=host, found=found, fix=fix)
    elif card.temperature is not None and card.temperature >= _HOT_CELSIUS:
        found = f"{which} is at {card.temperature} degrees Celsius before any work"
        yield Said(check="gpu clocks", host=host, found=found, fix="See its fans and the room's cooling.")
    if 0 < card.width < card.most_width:
        found = f"{which} has {card.width} PCIe lanes of {card.most_width}"
        fix = "See `lspci -vv` (LnkSta, downgraded) there; reseat the card or its riser."
        yield Said(check="gpu link", host=host, found=found, fix=fix)
    if card.processes:
        found = f"{which} is in use: {', '.join(card.processes[:3])}"
        yield Said(
            check="gpu busy", host=host, found=found, fix="End what is left over, or wait for that job."
        )


_REMAPPING = {"pending": "waits for a reset", "failed": "failed"}


def _xids(host: str, seen: Gpus) -> Iterator[Said]:
    for number, count in sorted((seen.xids or {}).items()):
        if number in _HARDWARE_XIDS:
            found = f"the kernel's log has Xid {number} {count} times: {_HARDWARE_XIDS[number]}"
            fix = f"See `dmesg | grep 'Xid.*: {number},'` there. {_RESET}"
            yield Said(check="gpu errors", host=host, found=found, fix=fix)


def _unlike(nodes: Mapping[str, Gpus]) -> Iterator[Said]:
    """Another model of card, or clocks locked below the others' of the same model."""
    models = {
        host: ", ".join(sorted({card.name for card in seen.cards}))
        for host, seen in nodes.items()
        if seen.cards
    }
    for _, host, found, _ in odd_ones("gpu count", "has", models):
        yield Said(
            check="gpu count", host=host, found=found, fix="Train on nodes with equal cards (--exclude)."
        )
    clocks = [card.wanted_mhz for seen in nodes.values() for card in seen.cards if card.wanted_mhz]
    usual = median(clocks) if clocks and len(set(models.values())) == 1 else 0
    for host, seen in nodes.items():
        for card in seen.cards:
            if 0 < card.wanted_mhz < 0.9 * usual:
                found = f"GPU {card.bus} is set to {card.wanted_mhz} MHz, the others to {usual:.0f} MHz"
                fix = (
                    "See `nvidia-smi -q -d CLOCK` there; `nvidia-smi --reset-applications-clocks` undoes it."
                )
                yield Said(check="gpu clocks", host=host, found=found, fix=fix)


def evidence(nodes: Mapping[str, Gpus]) -> dict[str, str]:
    """What the checks saw where they found nothing, by their identity."""
    cards = [card for seen in nodes.values() for card in seen.cards]
    if not cards:
        return {}
    lanes = min((card.width for card in cards), default=0)
    hottest = max((card.temperature or 0 for card in cards), default=0)
    unread = [host for host, seen in nodes.items() if seen.xids is None]
    log = f"the kernel's log may not be read on {', '.join(unread)}" if unread else "no Xid of the hardware"
    driver = next(seen.driver for seen in nodes.values() if seen.cards)
    return {
        "host.gpus": f"{len(cards)} x {cards[0].name}",
        "host.gpu-driver": f"driver {driver}",
        "host.gpu-errors": f"no uncorrected memory error; {log}",
        "host.gpu-clocks": f"not slowed down; {hottest} degrees Celsius at most",
        "host.gpu-link": f"{lanes} PCIe lanes at least",
        "host.gpu-busy": "no other process",
    }


def not_applicable(nodes: Mapping[str, Gpus]) -> dict[str, str]:
    """The checks without an object, with the reason."""
    if any(seen.present for seen in nodes.values()):
        return {}
    return {f"host.{name}": "no NVIDIA driver on any node" for name in _CHECKS}


_CHECKS = ("gpus", "gpu-driver", "gpu-errors", "gpu-clocks", "gpu-link", "gpu-busy")
