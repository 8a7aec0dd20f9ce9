"""Limits on a node's cable: tc's token bucket on both ends, since tc shapes only what leaves a device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from provision.errors import BadInput
from provision.lab.layout import LabNode

Argv = tuple[str, ...]
_UNITS = {"gbit": 10**9, "mbit": 10**6, "kbit": 10**3, "bit": 1}
# The kernel hands out tokens at most every 4 ms (HZ=250), so a bucket holds that much (tc-tbf(8)), and a few
# packets of 64 KiB, which is what a veth carries.
_REFILL_SECONDS = 0.004
_SMALLEST_BURST_BYTES = 256 * 1024


class Direction(StrEnum):
    """Seen from the node: what it receives, what it sends."""

    ingress = "ingress"
    egress = "egress"
    both = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Limits of a node's cable in tc's notation (200mbit); None is no limit."""

    ingress: str | None = None
    egress: str | None = None

    def with_rate(self, rate: str | None, direction: Direction) -> Shape:
        """This shape with `rate` in `direction`."""
        return Shape(
            ingress=self.ingress if direction is Direction.egress else rate,
            egress=self.egress if direction is Direction.ingress else rate,
        )


def bits_per_second(rate: str) -> int:
    """Reads a rate in tc's notation, in whole bits, kbit, mbit or gbit: 200mbit -> 200000000.

    Raises:
        BadInput: it is none.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,8})([kmg]?bit)", rate)
    if not found:
        raise BadInput(
            f"limit a cable to {rate!r}", found="it is no rate", fix="Give one such as 200mbit or 1gbit."
        )
    return int(found[1]) * _UNITS[found[2]]


def rate_in_words(bits: int) -> str:
    """A rate in the largest unit that takes it whole: 200000000 -> 200mbit."""
    unit, size = next((unit, size) for unit, size in _UNITS.items() if bits % size == 0)
    return f"{bits // size}{unit}"


def inside(pid: int) -> Argv:
    """Runs what follows in the network namespace of process `pid`."""
    return ("nsenter", f"--target={pid}", "--net")


def limit(node: LabNode, *, pid: int, shape: Shape) -> list[Argv]:
    """Limits both ends of a cable as `shape` says; an end without a limit is left as it is."""
    limits: list[Argv] = []
    if shape.ingress:
        limits.append(_bucket(node.link, shape.ingress))
    if shape.egress:
        limits.append((*inside(pid), *_bucket("eth0", shape.egress)))
    return limits


def _bucket(device: str, rate: str) -> Argv:
    burst = max(_SMALLEST_BURST_BYTES, round(bits_per_second(rate) / 8 * _REFILL_SECONDS))
    words = ("tc", "qdisc", "replace", "dev", device, "root", "tbf")
    return (*words, "rate", rate, "burst", f"{burst}b", "latency", "50ms")


def unlimit(node: LabNode, *, pid: int) -> list[Argv]:
    """Takes all limits away; a device without any answers with an error that means nothing."""
    return [
        ("tc", "qdisc", "delete", "dev", node.link, "root"),
        (*inside(pid), "tc", "qdisc", "delete", "dev", "eth0", "root"),
    ]


def show(node: LabNode, *, pid: int) -> tuple[Argv, Argv]:
    """Asks for the node's ingress, then its egress."""
    return (
        ("tc", "-json", "qdisc", "show", "dev", node.link),
        (*inside(pid), "tc", "-json", "qdisc", "show", "dev", "eth0"),
    )
