"""Injects and clears faults: the record first, then the words; whatever fails half-way is taken back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from provision.edges import process
from provision.errors import BadInput, ProvisionError
from provision.lab import observe
from provision.lab.cgroups import limited_groups
from provision.lab.fault import record
from provision.lab.fault.catalogue import CATALOGUE
from provision.lab.fault.model import Fault, Target
from provision.lab.fault.record import Active
from provision.lab.layout import Lab, LabNode
from provision.lab.record import load_shape
from provision.lab.shape import Argv

# An injection at ranks waits a minute for them.
_PATIENCE_SECONDS = 90.0


def inject(lab: Lab, node: LabNode, fault: Fault, *, peer: LabNode | None, value: str | None) -> Active:
    """Breaks a node.

    Raises:
        BadInput: the fault cannot be there, or not beside those that the node has.
        CommandFailed: a step did not succeed; what was done is taken back.
    """
    wanted = Active(fault=fault.name, peer=peer.name if peer else None, value=fault.value_of(value))
    present = record.load(node)
    refuse(fault, wanted, node, present)
    target = _aim(lab, node, wanted)
    if fault.needs_site:
        _require_site(target)
    record.save(node, [*present, wanted])
    try:
        _run(fault.inject(target))
    except ProvisionError:
        clear(lab, node, [wanted])
        raise
    return wanted


def refuse(fault: Fault, wanted: Active, node: LabNode, present: Iterable[Active]) -> None:
    """Raises:
    BadInput: the fault lacks its second node, has one too many, or another holds what it needs.
    """
    asked = f"inject {fault.name} on {node.name}"
    if fault.two_nodes != (wanted.peer is not None) or wanted.peer == node.name:
        found = "it needs a second node" if fault.two_nodes else "it takes one node"
        raise BadInput(asked, found=found, fix=f"provision lab fault inject {usage(fault)}")
    for other in present:
        same = (other.fault, other.peer) == (wanted.fault, wanted.peer)
        if same or CATALOGUE[other.fault].holds & fault.holds:
            raise BadInput(
                asked,
                found=f"{other.fault} is there already",
                fix=f"provision lab fault clear {node.name}",
            )


def usage(fault: Fault) -> str:
    """The words that inject a fault, as an example."""
    peer = " te3" if fault.two_nodes else ""
    value = f" --value {fault.default}" if fault.default else ""
    return f"{fault.name} te2{peer}{value}"


def clear(lab: Lab, node: LabNode, faults: Sequence[Active] | None = None) -> tuple[Active, ...]:
    """Takes faults (all of the node without any) back, the youngest first, and forgets each.

    Raises:
        CommandFailed: a step did not succeed; the fault is still in the record.
    """
    present = list(record.load(node))
    doomed = tuple(reversed(present if faults is None else [one for one in present if one in faults]))
    for active in doomed:
        _run(CATALOGUE[active.fault].clear(_aim(lab, node, active)))
        present.remove(active)
        record.save(node, present)
    return doomed


def mend(lab: Lab) -> None:
    """Takes the rest of faults back from nodes that lost theirs with their power; the records stay."""
    for node in lab.nodes:
        if node.unstruck.exists():
            for active in reversed(record.load(node)):
                _run(CATALOGUE[active.fault].clear(_aim(lab, node, active)))


def inject_again(lab: Lab) -> None:
    """Injects what the records of such nodes name."""
    for node in lab.nodes:
        if node.unstruck.exists():
            for active in record.load(node):
                _run(CATALOGUE[active.fault].inject(_aim(lab, node, active)))
            node.unstruck.unlink()


def _run(commands: Iterable[Argv]) -> None:
    for words in commands:
        process.run(words, timeout_seconds=_PATIENCE_SECONDS)


def _aim(lab: Lab, node: LabNode, active: Active) -> Target:
    keepers = observe.keepers_in(lab.folder)
    keeper = keepers.get(node.name)
    init = init_of(keeper) if keeper else None
    peer_keeper = keepers.get(active.peer) if active.peer else None
    if keeper is None or init is None:
        raise BadInput(
            f"work on {node.name} of lab {lab.name}",
            found="it is off",
            fix=f"provision lab power on {node.name} --name {lab.name}",
        )
    return Target(
        lab=lab,
        node=node,
        peer=next((other for other in lab.nodes if other.name == active.peer), None),
        value=active.value,
        keeper=keeper,
        init=init,
        shape=load_shape(node),
        peer_init=(init_of(peer_keeper) or 0) if peer_keeper else 0,
        groups=limited_groups(f"{lab.name}/{node.name}"),
    )


def init_of(keeper: int, proc: Path = Path("/proc")) -> int | None:
    """Process 1 of the node behind a keeper: in its network, and first in a third process namespace."""
    network = os.readlink(proc / str(keeper) / "ns" / "net")
    for folder in proc.iterdir():
        try:
            if not folder.name.isdigit() or os.readlink(folder / "ns" / "net") != network:
                continue
            if is_init((folder / "status").read_text()):
                return int(folder.name)
        except OSError:  # it has ended meanwhile
            continue
    return None


def is_init(status: str) -> bool:
    """Whether /proc/PID/status is that of process 1 two namespaces down: the keeper's and the node's own."""
    ids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(ids) == 3 and ids[-1] == "1"


def _require_site(target: Target) -> None:
    words = target.within("test", "-e", "/etc/clusterwright/cluster.json")
    if process.run(words, timeout_seconds=10, check=False).returncode != 0:
        raise BadInput(
            f"break what site.yml makes on {target.node.name}",
            found="site.yml has not run there",
            fix=f"ansible-playbook playbooks/site.yml -i {target.lab.inventory}",
        )
