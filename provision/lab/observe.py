"""What the kernel shows of a lab: no state file is believed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path
from typing import Any

from provision.edges import process
from provision.lab import argv, shape
from provision.lab.cgroups import has_cgroups
from provision.lab.layout import Lab, LabNode
from provision.lab.limits import INOTIFY_INSTANCES, inotify_instances
from provision.lab.shape import Shape
from provision.lab.snapshot import SNAPSHOT_ROOT, half_of


class State(StrEnum):
    off = "off"
    booting = "booting"
    running = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A lab's traces on this machine.

    keepers: node name -> the process that holds its namespaces. pids: every process of the lab, keepers
    included. loops: loop devices over the lab's files. links: its cables -> are they up and in the bridge.
    mounts: places in its folder where this machine itself (not a node's keeper) has something mounted.
    written: where what nodes wrote is mounted, beside a snapshot. snapshots: files behind such mounts.
    half: a snapshot of the lab that was never finished.
    """

    keepers: Mapping[str, int] = field(default_factory=dict)
    server: int | None = None
    pids: tuple[int, ...] = ()
    bridge: bool = False
    links: Mapping[str, bool] = field(default_factory=dict)
    loops: tuple[str, ...] = ()
    mounts: tuple[Path, ...] = ()
    written: Path | None = None
    snapshots: tuple[Path, ...] = ()
    half: Path | None = None
    cgroups: bool = False
    files: bool = False
    inotify_instances: int = INOTIFY_INSTANCES


def observe(folder: Path, bridge: str) -> Observed:
    """Looks for everything that belongs to the lab in `folder` with the bridge `bridge`."""
    found = dict(_processes(folder))
    links = _links(bridge)
    mounts = Path("/proc/self/mounts").read_text()
    places, half = mounts_in(folder, mounts), half_of(folder.name, folder.parent.parent / SNAPSHOT_ROOT.name)
    return Observed(
        keepers=keepers_among(found),
        server=next((pid for pid, words in found.items() if argv.FILE_SERVER in words), None),
        pids=tuple(found),
        bridge=bridge in links,
        links={name: connected for name, connected in links.items() if name != bridge},
        loops=loops_in(folder),
        mounts=places,
        written=folder / "nodes" if folder / "nodes" in places else None,
        snapshots=_images_behind(folder, mounts),
        half=half if half.exists() else None,
        cgroups=has_cgroups(folder.name),
        files=folder.exists(),
        inotify_instances=inotify_instances(),
    )


def keepers_in(folder: Path) -> dict[str, int]:
    """The process that holds the namespaces of each node in `folder` that is not off, by the node's name."""
    return keepers_among(dict(_processes(folder)))


def keepers_among(found: Mapping[int, tuple[str, ...]]) -> dict[str, int]:
    """The processes (among process id -> command line) that hold a node's namespaces, by the node's name."""
    return {
        words[words.index("--folder") + 1].rsplit("/", 1)[1]: pid
        for pid, words in found.items()
        if Path(words[0]).name == "unshare" and argv.KEEPER in words
    }


def _processes(folder: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The lab's processes, with their command lines."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = tuple((entry / "cmdline").read_text(errors="replace").split("\0")[:-1])
        except OSError:  # it has ended meanwhile
            continue
        if belongs(words, folder):
            yield int(entry.name), words


def belongs(words: tuple[str, ...], folder: Path) -> bool:
    """Whether a command line is one of the lab in `folder`, or a connection that Ansible keeps to a node."""
    if words and words[0].startswith(f"ssh: {folder}/"):
        return True
    ours = any(pair in (("-m", argv.KEEPER), ("-m", argv.FILE_SERVER)) for pair in pairwise(words))
    return ours and any(word == str(folder) or word.startswith(f"{folder}/") for word in words)


def _links(bridge: str) -> dict[str, bool]:
    shown = process.run(("ip", "-json", "link", "show"), timeout_seconds=10).stdout
    return {
        link["ifname"]: link.get("master") == bridge and "UP" in link["flags"]
        for link in _json_list(shown)
        if link["ifname"] == bridge or link["ifname"].startswith(f"{bridge}-te")
    }


def loops_in(folder: Path) -> tuple[str, ...]:
    """The loop devices over files in `folder`."""
    return tuple(device for device, path in _loops().items() if path.is_relative_to(folder))


def _images_behind(folder: Path, mounts: str) -> tuple[Path, ...]:
    """The files whose file systems are mounted in `folder`."""
    devices = {line.split(" ")[0] for line in mounts.splitlines() if f" {folder}/" in line}
    return tuple(sorted(path for device, path in _loops().items() if device in devices))


def is_attached(image: Path) -> bool:
    """Whether a loop device has the file `image` behind it."""
    return image in _loops().values()


def _loops() -> dict[str, Path]:
    """All loop devices, and the files behind them."""
    shown = process.run(("losetup", "--list", "--json", "--output", "NAME,BACK-FILE"), timeout_seconds=10)
    devices = json.loads(shown.stdout)["loopdevices"] if shown.stdout.strip() else []
    return {str(device["name"]): Path(str(device["back-file"])) for device in devices}


def mounts_in(folder: Path, mounts: str) -> tuple[Path, ...]:
    """The mounts at and below `folder`, deepest first, from the text of /proc/self/mounts."""
    places = (line.split(" ")[1].replace("\\040", " ") for line in mounts.splitlines())
    return tuple(
        sorted(
            (Path(place) for place in places if place == str(folder) or place.startswith(f"{folder}/")),
            reverse=True,
        )
    )


def state_of(node: LabNode, observed: Observed) -> State:
    """Off, on its way, or with an sshd that answers."""
    if node.name not in observed.keepers:
        return State.off
    return State.running if answers(node.address) else State.booting


def overlapping_links(lab: Lab) -> list[str]:
    """Links of this machine, the lab's bridge apart, whose network shares addresses with the lab's."""
    shown = process.run(("ip", "-json", "-4", "address", "show"), timeout_seconds=10).stdout
    return [
        link["ifname"]
        for link in _json_list(shown)
        if link["ifname"] != lab.bridge
        and any(
            lab.subnet.overlaps(IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False))
            for address in link["addr_info"]
        )
    ]


def answers(address: str, *, wait_seconds: float = 0.5) -> bool:
    """Whether an sshd greets at `address`."""
    try:
        with socket.create_connection((address, 22), timeout=wait_seconds) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def listens(address: str, port: int) -> bool:
    """Whether something accepts connections at `address`:`port`."""
    try:
        socket.create_connection((address, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def shape_of(node: LabNode, pid: int) -> Shape:
    """The limits that the kernel applies to a node's cable now."""
    rates = [_rate(process.run(words, timeout_seconds=10).stdout) for words in shape.show(node, pid=pid)]
    return Shape(ingress=rates[0], egress=rates[1])


def _rate(shown: str) -> str | None:
    for qdisc in _json_list(shown):
        if qdisc.get("kind") == "tbf":
            return shape.rate_in_words(int(qdisc["options"]["rate"]) * 8)
    return None


def _json_list(text: str) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = json.loads(text or "[]")
    return parsed


def state_of_all(lab: Lab, observed: Observed) -> dict[str, State]:
    """The state of each node of the lab, by name."""
    return {node.name: state_of(node, observed) for node in lab.nodes}
