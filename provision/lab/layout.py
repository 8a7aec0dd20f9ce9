"""Names, addresses and folders of a lab: all of them follow from its name, subnet and number of nodes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from pathlib import Path

from provision.errors import BadInput

STATE_ROOT = Path("/var/lib/clusterwright/labs")
MIRROR_PORT = 8080
DEFAULT_SUBNET = "10.77.0.0/24"
DEFAULT_NODES = 4
DEFAULT_DISK_BYTES = 12 << 30
# Node te1 has address .11 and the kernel allows 15 characters in the name of a link ("cw" + name + "-te64").
_FIRST_NODE = 10
_MAX_NODES = 64
_NAME = re.compile(r"[a-z][a-z0-9]{0,7}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabNode:
    """One machine of a lab, and where its parts lie on this one."""

    name: str
    address: str
    link: str  # this machine's end of its cable
    mac: str  # of its network card; neighbours keep it in mind while the node is off
    serial: str  # of its data disk
    folder: Path

    @property
    def upper(self) -> Path:
        """What the node has written over the base image."""
        return self.folder / "upper"

    @property
    def disk(self) -> Path:
        """The file behind its data disk."""
        return self.folder / "disk.img"

    @property
    def disks(self) -> Path:
        """Which disks it has at its next start, where that is not its data disk alone."""
        return self.folder / "disks.json"

    @property
    def faults(self) -> Path:
        """Which faults it has."""
        return self.folder / "faults.json"

    @property
    def unstruck(self) -> Path:
        """An empty file: its faults went with its power, and `up` injects them again."""
        return self.folder / "unstruck"

    @property
    def shape(self) -> Path:
        """The limits of its cable, kept while it is off."""
        return self.folder / "shape.json"

    @property
    def console(self) -> Path:
        """What it printed while it booted, and what its keeper said."""
        return self.folder / "console.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A lab as it is wanted: everything else about it is computed from these."""

    name: str
    subnet: IPv4Network
    count: int
    disk_bytes: int
    folder: Path
    base: Path  # the image that all nodes start from
    data_image: Path | None = None  # what their data disks are copies of; None for blank ones
    snapshot: str | None = None  # what its nodes start from instead, where that holds them
    release: str = ""  # the code name of that image's; this machine's own without one

    @property
    def bridge(self) -> str:
        return bridge_of(self.name)

    @property
    def mac(self) -> str:
        """The bridge's own; else it would change with the nodes that are on."""
        return _mac(self.name)

    @property
    def gateway(self) -> str:
        """The controller's address on the bridge."""
        return str(self.subnet[1])

    @property
    def nodes(self) -> tuple[LabNode, ...]:
        return tuple(_node(self, index) for index in range(1, self.count + 1))

    @property
    def ssh_key(self) -> Path:
        return self.folder / "ssh_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def record(self) -> Path:
        return self.folder / "lab.json"

    @property
    def nodes_folder(self) -> Path:
        return self.folder / "nodes"

    @property
    def snapshot_mount(self) -> Path:
        """Where the file system of its snapshot is mounted, read only."""
        return self.folder / "snapshot"

    @property
    def restored(self) -> Path:
        """An empty file: keys and secrets have come from the snapshot."""
        return self.folder / "restored"

    @property
    def user_data(self) -> Path:
        """What new nodes find on their disks as a cloud leaves it there: NODE.json, where there is one."""
        return self.folder / "user_data"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory"


def mirror_name(release: str) -> str:
    """In the user's cache, the folder with what nodes of a release install from; "" is this machine's own."""
    return f"mirror-{release}" if release else "mirror"


def cores_of(lab: Lab, node: LabNode, available: Iterable[int]) -> tuple[int, ...]:
    """The processors of this machine that a node has: its equal share, or one that several take turns on.

    Without it every node takes all of them for its own, and the threads of N ranks spin on the same cores.
    """
    cores, index = sorted(available), lab.nodes.index(node)
    each = len(cores) // lab.count
    if each == 0:
        return (cores[index % len(cores)],)
    return tuple(cores[index * each : (index + 1) * each])


def _node(lab: Lab, index: int) -> LabNode:
    name = f"te{index}"
    return LabNode(
        name=name,
        address=str(lab.subnet[_FIRST_NODE + index]),
        link=f"{lab.bridge}-{name}",
        mac=_mac(f"{lab.name}/{name}"),
        serial=_digest(f"{lab.name}/{name}/vdb")[:16],
        folder=lab.nodes_folder / name,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _mac(owner: str) -> str:
    """A locally administered address that is always the same for one owner."""
    digits = _digest(owner)
    return ":".join(["02", *(digits[i : i + 2] for i in range(0, 10, 2))])


def bridge_of(name: str) -> str:
    """The link name of a lab's bridge."""
    return f"cw{name}"


def folder_of(name: str, root: Path = STATE_ROOT) -> Path:
    """The folder that holds the lab called `name`.

    Raises:
        BadInput: a bridge cannot have that name.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"call a lab {name!r}",
            found="a name has 1 to 8 characters: a small letter, then small letters and digits",
            fix="Choose another --name.",
        )
    return root / name


def lay_out(
    *,
    name: str,
    subnet: str,
    count: int,
    disk_bytes: int,
    base: Path,
    data_image: Path | None = None,
    snapshot: str | None = None,
    release: str = "",
    root: Path = STATE_ROOT,
) -> Lab:
    """Computes a lab from what a person asked for.

    Raises:
        BadInput: the name, the subnet, the number of nodes or the disk's size cannot be used.
    """
    if not 1 <= count <= _MAX_NODES:
        raise BadInput(
            f"make a lab of {count} nodes", found=f"a lab has 1 to {_MAX_NODES} nodes", fix="Choose --nodes."
        )
    if disk_bytes < 1 << 20:
        raise BadInput(
            f"make a disk of {disk_bytes} bytes", found="it is smaller than 1 MiB", fix="Choose --disk-size."
        )
    network = _network(subnet)
    if network.num_addresses <= _FIRST_NODE + count + 1:
        raise BadInput(
            f"place {count} nodes in {network}",
            found=f"node addresses begin at .{_FIRST_NODE + 1} and the network is too small",
            fix="Choose a larger --subnet, for example 10.77.0.0/24.",
        )
    folder = folder_of(name, root)
    return Lab(
        name=name,
        subnet=network,
        count=count,
        disk_bytes=disk_bytes,
        folder=folder,
        base=base,
        data_image=data_image,
        snapshot=snapshot,
        release=release,
    )


def _network(subnet: str) -> IPv4Network:
    try:
        return IPv4Network(subnet)
    except (AddressValueError, NetmaskValueError, ValueError) as e:
        raise BadInput(
            f"use the subnet {subnet!r}", found=str(e), fix="Give a network such as 10.77.0.0/24."
        ) from e
