"""What two machines made from an image must show, by what was read on them: pure.

Seen: machine-id, host keys, name, hosts, digest, state (of the first boot), mounted, written, bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.join.protocol import Call
from provision.model import Machine

Seen = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that an image must show, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskCase:
    """Disks of a machine at its first boot: own (grown to `own_bytes`), copy, blank; and what must follow."""

    name: str
    disks: tuple[str, ...]
    own_bytes: int | None = None
    is_right: Callable[[Seen], bool]


def different(seen: Sequence[Seen]) -> list[Check]:
    checks = []
    for what in ("machine-id", "host keys"):
        first, second = (one[what] for one in seen)
        apart = bool(first) and bool(second) and not set(_listed(first)) & set(_listed(second))
        checks.append(
            Check(name=f"different {what}", passed=apart, found=f"{_short(first)} and {_short(second)}")
        )
    return checks


def announced(seen: Sequence[Seen], arrived: Mapping[str, Call]) -> Check:
    said = sorted(key for call in arrived.values() for key in call.host_keys)
    held = sorted(key for one in seen for key in one["host keys"])
    return Check(
        name="host keys as announced", passed=said == held, found=f"{len(held)} keys, {len(said)} announced"
    )


def after_a_reboot(
    machines: Sequence[Machine],
    before: Sequence[Seen],
    after: Sequence[Seen],
    *,
    environment: str,
) -> list[Check]:
    """Whether machines are what they were, and have names, disks, firewall and the image's environment."""
    pairs = list(zip(before, after, strict=True))
    kept = all(old[what] == new[what] for what in ("machine-id", "host keys") for old, new in pairs)
    lines = [f"{machine.address} {machine.name}" for machine in machines]
    named = all(one["name"] == machine.name for one, machine in zip(after, machines, strict=True))
    hosts = all(line in one["hosts"].splitlines() for one in after for line in lines)
    digests = sorted({one["digest"] for one in after})
    unfenced = [f"{one['name']} has none" for one in after if not one["fenced"]]
    return [
        Check(name="identity outlives a reboot", passed=kept, found="kept" if kept else "changed"),
        Check(name="name and /etc/hosts", passed=named and hosts, found=_names(after, hosts)),
        Check(
            name="data disk after a reboot", passed=all(one["mounted"] for one in after), found=_sizes(after)
        ),
        Check(name="firewall of jobs", passed=not unfenced, found=", ".join(unfenced) or "on each machine"),
        Check(name="environment digest", passed=digests == [environment], found=_short(digests)),
    ]


def disk_cases(size: int) -> list[DiskCase]:
    """Each kind of disk that a snapshot's machine can come with; `size` is that of the image's, in bytes."""
    return [
        DiskCase(name="boot without a data disk", disks=(), is_right=_without_a_disk),
        DiskCase(
            name="boot with two copies of it",
            disks=("own", "copy"),
            is_right=lambda seen: not seen["mounted"] and "2 disks" in said_of_disks(seen),
        ),
        DiskCase(
            name="boot with a blank disk",
            disks=("blank",),
            is_right=lambda seen: _without_a_disk(seen) and not seen["written"],
        ),
        DiskCase(
            name="boot with a grown disk",
            disks=("own",),
            own_bytes=size + size // 8,
            is_right=lambda seen: bool(seen["bytes"] > size),
        ),
    ]


def _without_a_disk(seen: Seen) -> bool:
    return not seen["mounted"] and "no disk" in said_of_disks(seen)


def said_of_disks(seen: Seen) -> str:
    """What the first boot said of the data disk; empty while it has not come to it."""
    return str(seen["state"].get("data", ""))


def _listed(value: object) -> list[str]:
    return value if isinstance(value, list) else [str(value)]


def _short(value: object) -> str:
    return ", ".join(text.rsplit(" ", 1)[-1][-12:] for text in _listed(value)) or "none"


def _names(seen: Sequence[Seen], hosts: bool) -> str:
    return ", ".join(one["name"] for one in seen) + ("" if hosts else "; /etc/hosts lacks a node")


def _sizes(seen: Sequence[Seen]) -> str:
    return ", ".join(f"{one['bytes'] / 2**30:.1f} GiB" if one["mounted"] else "not mounted" for one in seen)
