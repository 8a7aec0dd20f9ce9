"""Command lines of the lab, built without side effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from provision.lab.layout import MIRROR_PORT, Lab, LabNode

KEEPER = "provision.lab.keeper"
FILE_SERVER = "provision.lab.file_server"
# Enough queue for 50 ms at full rate, and a burst that lets the kernel's timer keep up (tc-tbf(8)).
_TBF = ("burst", "256kb", "latency", "50ms")

Argv = tuple[str, ...]


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


def keeper(node: LabNode, *, python: str, base: Path, own_cgroup: bool) -> Argv:
    """Starts a node's keeper in namespaces of its own: when it ends, the kernel takes the whole node away."""
    words: Argv = (
        *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *(python, "-m", KEEPER, "--folder", str(node.folder), "--base", str(base), "--serial", node.serial),
    )
    return (*words, "--own-cgroup") if own_cgroup else words


def nspawn(*, root: Path, machine: str, disk: str, serial: str, keep_unit: bool) -> Argv:
    """Boots a node in its keeper's network namespace.

    CAP_NET_ADMIN: a firewall inside; CAP_IPC_LOCK: locked memory, as on a machine. CAP_SYS_TIME stays
    dropped: the clock is this machine's own.
    """
    return (
        *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--console=pipe"),
        *(("--keep-unit",) if keep_unit else (f"--property=DeviceAllow={disk} rwm",)),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
        *(f"--machine={machine}", f"--directory={root}", "--network-namespace-path=/proc/self/ns/net"),
        *(f"--bind={disk}:/dev/vdb", f"--setenv=LAB_VDB_SERIAL={serial}"),
        "--capability=CAP_NET_ADMIN,CAP_IPC_LOCK",
    )


def file_server(lab: Lab, *, python: str, served: Path) -> Argv:
    return (
        *(python, "-m", FILE_SERVER, "--folder", str(lab.folder), "--served", str(served)),
        *("--address", lab.gateway, "--port", str(MIRROR_PORT)),
    )


def make_bridge(lab: Lab) -> list[Argv]:
    prefix = lab.subnet.prefixlen
    return [
        ("ip", "link", "add", "name", lab.bridge, "type", "bridge"),
        ("ip", "address", "replace", f"{lab.gateway}/{prefix}", "dev", lab.bridge),
        ("ip", "link", "set", "dev", lab.bridge, "up"),
    ]


def connect(lab: Lab, node: LabNode, *, pid: int, shape: Shape) -> list[Argv]:
    """Lays the cable between the bridge and the keeper `pid`.

    This machine's end comes up last: the carrier that the keeper waits for means that all the rest is done.
    """
    inside = _inside(pid)
    return [
        (
            *("ip", "link", "add", "name", node.link, "type", "veth"),
            *("peer", "name", "eth0", "netns", str(pid)),
        ),
        (*inside, "ip", "link", "set", "dev", "lo", "up"),
        (*inside, "ip", "address", "add", f"{node.address}/{lab.subnet.prefixlen}", "dev", "eth0"),
        (*inside, "ip", "link", "set", "dev", "eth0", "up"),
        *set_shape(node, pid=pid, shape=shape),
        ("ip", "link", "set", "dev", node.link, "master", lab.bridge, "up"),
    ]


def delete_link(link: str) -> Argv:
    return ("ip", "link", "delete", "dev", link)


def set_shape(node: LabNode, *, pid: int, shape: Shape) -> list[Argv]:
    """Limits both ends of a cable that has no limits; tc shapes only what leaves a device."""
    limits: list[Argv] = []
    if shape.ingress:
        limits.append(
            ("tc", "qdisc", "replace", "dev", node.link, "root", "tbf", "rate", shape.ingress, *_TBF)
        )
    if shape.egress:
        limits.append(
            (
                *(*_inside(pid), "tc", "qdisc", "replace", "dev", "eth0", "root"),
                *("tbf", "rate", shape.egress, *_TBF),
            )
        )
    return limits


def clear_shape(node: LabNode, *, pid: int) -> list[Argv]:
    """Takes all limits away; a device without any answers with an error that means nothing."""
    return [
        ("tc", "qdisc", "delete", "dev", node.link, "root"),
        (*_inside(pid), "tc", "qdisc", "delete", "dev", "eth0", "root"),
    ]


def show_shape(node: LabNode, *, pid: int) -> tuple[Argv, Argv]:
    """Asks for the node's ingress, then its egress."""
    return (
        ("tc", "-json", "qdisc", "show", "dev", node.link),
        (*_inside(pid), "tc", "-json", "qdisc", "show", "dev", "eth0"),
    )


def ssh(lab: Lab, node: LabNode, command: Sequence[str] = ()) -> Argv:
    """Reaches a node as root with the lab's key and no host key but the node's own."""
    return (
        *("ssh", "-i", str(lab.ssh_key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"),
        *("-o", f"UserKnownHostsFile={lab.known_hosts}", "-o", "GlobalKnownHostsFile=none"),
        *("-o", "ConnectTimeout=10", f"root@{node.address}", *command),
    )


def _inside(pid: int) -> Argv:
    return ("nsenter", f"--target={pid}", "--net")
