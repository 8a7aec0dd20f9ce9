"""Command lines of the lab, built without side effects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import ascii_lowercase

from provision.lab.layout import MIRROR_PORT, Lab, LabNode
from provision.lab.shape import Argv, Shape, inside, limit

KEEPER = "provision.lab.keeper"
FILE_SERVER = "provision.lab.file_server"
CAPTURE = "provision.lab.capture"


def keeper(
    lab: Lab,
    node: LabNode,
    *,
    python: str,
    systemd: bool,
    cores: Iterable[int],
    layers: Iterable[Path] = (),
) -> Argv:
    """Starts a node's keeper in namespaces of its own: when it ends, the kernel takes the whole node away.

    Args:
        cores: the processors that the node may run on.
        layers: what lies over the base image and under what it writes, the youngest first.
        systemd: whether it is this machine's process 1; then the node's control group is one of its scopes.
    """
    words: Argv = (
        *("taskset", "--cpu-list", ",".join(map(str, cores))),
        *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *(python, "-m", KEEPER, "--folder", str(node.folder)),
        *("--base", str(lab.base), "--serial", node.serial),
        *(word for layer in layers for word in ("--layer", str(layer))),
    )
    if not systemd:
        return (*words, "--own-cgroup")
    scope = ("systemd-run", "--scope", "--quiet", "--collect", f"--unit=clusterwright-{lab.name}-{node.name}")
    return (*scope, "--slice=machine.slice", "--property=Delegate=yes", "--", *words)


def nspawn(*, root: Path, machine: str, disks: Sequence[str], serial: str) -> Argv:
    """Boots a node in its keeper's control group and network namespace, unknown to any service manager.

    CAP_NET_ADMIN: a firewall inside; CAP_IPC_LOCK: locked memory, as on a machine. CAP_SYS_TIME stays
    dropped: the clock is this machine's own.
    """
    return (
        *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
        *(f"--machine={machine}", f"--directory={root}", "--network-namespace-path=/proc/self/ns/net"),
        *(f"--bind={disk}:/dev/vd{letter}" for letter, disk in zip(ascii_lowercase[1:], disks, strict=False)),
        f"--setenv=LAB_VDB_SERIAL={serial}",
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
        ("ip", "link", "add", "name", lab.bridge, "address", lab.mac, "type", "bridge"),
        ("ip", "address", "replace", f"{lab.gateway}/{prefix}", "dev", lab.bridge),
        ("ip", "link", "set", "dev", lab.bridge, "up"),
    ]


def connect(lab: Lab, node: LabNode, *, pid: int, shape: Shape) -> list[Argv]:
    """Lays the cable between the bridge and the keeper `pid`.

    This machine's end comes up last: the carrier that the keeper waits for means that all the rest is done.
    """
    return [
        (
            *("ip", "link", "add", "name", node.link, "type", "veth"),
            *("peer", "name", "eth0", "address", node.mac, "netns", str(pid)),
        ),
        (*inside(pid), "ip", "link", "set", "dev", "lo", "up"),
        (*inside(pid), "ip", "address", "add", f"{node.address}/{lab.subnet.prefixlen}", "dev", "eth0"),
        (*inside(pid), "ip", "link", "set", "dev", "eth0", "up"),
        *limit(node, pid=pid, shape=shape),
        ("ip", "link", "set", "dev", node.link, "master", lab.bridge, "up"),
    ]


def try_cables(lab: Lab, *, pid: int, python: str) -> list[Argv]:
    """Reaches from one node (its keeper's `pid`) the last node's sshd and the file server."""
    program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"
    targets = ((lab.nodes[-1].address, "22"), (lab.gateway, str(MIRROR_PORT)))
    return [(*inside(pid), python, "-c", program, *target) for target in targets]


def capture(lab: Lab, *, python: str, target: Path, file_system_bytes: int | None) -> Argv:
    """Copies a lab whose nodes are off into `target`; what it mounts goes with it, however it ends.

    Args:
        file_system_bytes: size of the file system to make there; None copies into a folder.
    """
    size = () if file_system_bytes is None else ("--file-system-bytes", str(file_system_bytes))
    return (
        *("unshare", "--mount", "--", python, "-m", CAPTURE),
        *("--folder", str(lab.folder), "--target", str(target), *size),
    )


def mount_snapshot(lab: Lab, image: Path) -> list[Argv]:
    """Mounts a snapshot's file system: what is frozen read only, what the nodes write where they write it."""
    return [
        ("mount", "-t", "xfs", "-o", "loop,discard,noatime", str(image), str(lab.snapshot_mount)),
        ("mount", "--bind", str(lab.snapshot_mount / "live"), str(lab.nodes_folder)),
        ("mount", "-o", "remount,bind,ro", str(lab.snapshot_mount)),
    ]


def delete_link(link: str) -> Argv:
    return ("ip", "link", "delete", "dev", link)


def ssh(lab: Lab, node: LabNode, command: Sequence[str] = ()) -> Argv:
    """Reaches a node as root with the lab's key and no host key but the node's own."""
    return (
        *("ssh", "-i", str(lab.ssh_key), "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"),
        *("-o", f"UserKnownHostsFile={lab.known_hosts}", "-o", "GlobalKnownHostsFile=none"),
        *("-o", "ConnectTimeout=10", f"root@{node.address}", *command),
    )
