"""What can be done with a lab: each function looks, plans and applies under the lab's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from provision.edges import process
from provision.errors import BadInput
from provision.lab import apply, observe, plan, record, restore
from provision.lab.cgroups import remove_cgroups
from provision.lab.layout import (
    DEFAULT_DISK_BYTES,
    DEFAULT_NODES,
    DEFAULT_SUBNET,
    STATE_ROOT,
    Lab,
    LabNode,
    bridge_of,
    lay_out,
)
from provision.lab.lock import hold
from provision.lab.observe import Observed, State
from provision.lab.shape import Direction, Shape, bits_per_second
from provision.lab.snapshot import Snapshot

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node as the kernel shows it now."""

    name: str
    address: str
    state: State
    pid: int | None
    shape: Shape


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of the lab in `folder`.

    Raises:
        Busy: another command works on this lab.
    """
    with hold(f"lab {folder.name}"):
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person says about a lab; None leaves it to the lab that exists, or to the default."""

    subnet: str | None = None
    count: int | None = None
    disk_bytes: int | None = None


def wanted_lab(
    name: str,
    asked: Asked,
    *,
    existing: Lab | None,
    base: Path,
    data_image: Path | None = None,
    release: str = "",
    root: Path = STATE_ROOT,
) -> Lab:
    """The lab to bring up: what was asked, unless one exists; that one may only grow.

    Args:
        base: the image that a new lab starts from; an existing one keeps its own.
        data_image: what a new lab's data disks are copies of; likewise.
        release: that image's, where it is not this machine's.

    Raises:
        BadInput: it cannot be, or the existing lab is another one.
    """
    wanted = lay_out(
        name=name,
        subnet=asked.subnet or (str(existing.subnet) if existing else DEFAULT_SUBNET),
        count=asked.count if asked.count is not None else existing.count if existing else DEFAULT_NODES,
        disk_bytes=asked.disk_bytes or (existing.disk_bytes if existing else DEFAULT_DISK_BYTES),
        base=existing.base if existing else base,
        data_image=existing.data_image if existing else data_image,
        snapshot=existing.snapshot if existing else None,
        release=release or (existing.release if existing else ""),
        root=root,
    )
    if existing and (replace(wanted, count=existing.count) != existing or wanted.count < existing.count):
        raise BadInput(
            f"bring up lab {name} with {_in_words(wanted)}",
            found=f"it exists with {_in_words(existing)}; it can only get more nodes",
            fix=f"Take it down first: provision lab down --name {name}",
        )
    return wanted


def restored_lab(name: str, asked: Asked, *, existing: Lab | None, frozen: Snapshot) -> Lab:
    """The lab to bring up from a snapshot: the one that was frozen, perhaps with more nodes.

    Raises:
        BadInput: the lab that exists did not come from it, or what was asked is another lab.
    """
    from_words = f"bring up lab {name} from snapshot {frozen.name}"
    command = f"provision lab up --from {frozen.name} --name {frozen.lab.name}"
    if name != frozen.lab.name:
        found = f"it is of lab {frozen.lab.name}, whose name and addresses the nodes have in their files"
        raise BadInput(from_words, found=found, fix=command)
    if existing and existing.snapshot != frozen.name:
        found = f"lab {name} exists, and did not come from it"
        raise BadInput(from_words, found=found, fix=f"Take it down first: provision lab down --name {name}")
    wanted = lay_out(
        name=name,
        subnet=asked.subnet or str(frozen.lab.subnet),
        count=asked.count or (existing or frozen.lab).count,
        disk_bytes=asked.disk_bytes or frozen.lab.disk_bytes,
        base=frozen.lab.base,
        data_image=frozen.lab.data_image,
        snapshot=frozen.name,
        release=frozen.lab.release,
        root=frozen.lab.folder.parent,
    )
    least = existing or replace(frozen.lab, snapshot=frozen.name)
    if replace(wanted, count=least.count) != least or wanted.count < least.count:
        found = f"it has {_in_words(least)}; only nodes can be added"
        raise BadInput(f"{from_words} with {_in_words(wanted)}", found=found, fix=f"{command} says it all.")
    return wanted


def _in_words(lab: Lab) -> str:
    of_release = f" of {lab.release}" if lab.release else ""
    return f"{lab.count} nodes{of_release} on {lab.subnet} and disks of {lab.disk_bytes / 2**30:g} GiB"


def plan_for_up(lab: Lab) -> list[plan.Step]:
    """The steps that `up` would do now."""
    made = frozenset(node.name for node in lab.nodes if node.folder.exists())
    restoring = None
    if lab.snapshot:
        mounted, keys = restore.is_mounted(lab), lab.restored.exists()
        restoring = plan.Restoring(name=lab.snapshot, mounted=mounted, keys=keys)
    unstruck = any(node.unstruck.exists() for node in lab.nodes)
    return plan.plan_up(
        lab, look(lab), made=made, has_image=lab.base.exists(), snapshot=restoring, unstruck=unstruck
    )


def up(lab: Lab, *, mirror: Path, report: Report) -> None:
    """Brings up whatever is missing of a lab and waits until every sshd answers."""
    _refuse_overlap(lab)
    restore.require(lab)
    record.save(lab)
    if lab.snapshot is None:
        _ensure_key(lab)
    apply.apply_up(lab, plan_for_up(lab), mirror=mirror, report=report)


def up_network(lab: Lab, *, mirror: Path, report: Report) -> None:
    """Makes the network alone: then something can listen at its gateway before the nodes boot."""
    _refuse_overlap(lab)
    record.save(lab)
    steps = [step for step in plan_for_up(lab) if step.action is plan.Action.make_bridge]
    apply.apply_up(lab, steps, mirror=mirror, report=report)


def _refuse_overlap(lab: Lab) -> None:
    links = observe.overlapping_links(lab)
    if links:
        raise BadInput(
            f"give {lab.subnet} to lab {lab.name}",
            found=f"this machine already has addresses of it on {', '.join(links)}",
            fix="Choose another --subnet, for example 10.77.5.0/24.",
        )


def _ensure_key(lab: Lab) -> None:
    public = lab.ssh_key.with_suffix(".pub")
    if public.exists():
        return
    lab.ssh_key.unlink(missing_ok=True)  # half a pair, from a command that was killed
    words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", lab.ssh_key)
    process.run(words, timeout_seconds=30)


def plan_for_down(folder: Path) -> list[plan.Step]:
    """The steps that `down` would do now, for the lab whose state is (or was) in `folder`."""
    bridge = bridge_of(folder.name)
    return plan.plan_down(bridge, observe.observe(folder, bridge))


def down(folder: Path, *, report: Report) -> None:
    """Removes every trace of the lab in `folder`, whatever state it is in."""
    apply.apply_down(folder, plan_for_down(folder), report=report)


def look(lab: Lab) -> Observed:
    return observe.observe(lab.folder, lab.bridge)


def status(lab: Lab) -> list[NodeStatus]:
    """Every node of the lab as the kernel shows it."""
    observed = look(lab)
    return [_status(node, observed) for node in lab.nodes]


def _status(node: LabNode, observed: Observed) -> NodeStatus:
    pid = observed.keepers.get(node.name)
    connected = pid is not None and observed.links.get(node.link, False)
    return NodeStatus(
        name=node.name,
        address=node.address,
        state=observe.state_of(node, observed),
        pid=pid,
        shape=observe.shape_of(node, pid) if pid is not None and connected else record.load_shape(node),
    )


def nodes_called(lab: Lab, names: Sequence[str]) -> list[LabNode]:
    """The nodes with these names, all for none.

    Raises:
        BadInput: the lab has no such node.
    """
    known = {node.name: node for node in lab.nodes}
    for name in names:
        if name not in known:
            raise BadInput(
                f"find node {name} in lab {lab.name}",
                found=f"its nodes are te1 to te{lab.count}",
                fix="Name one of them.",
            )
    return [known[name] for name in names] or list(lab.nodes)


def power_off(lab: Lab, nodes: Sequence[LabNode]) -> None:
    """Pulls the plug of some nodes. Their disks keep what was written; the kernel flushes what it holds."""
    keepers = look(lab).keepers
    apply.kill([keepers[node.name] for node in nodes if node.name in keepers])
    for node in nodes:
        # The kernel drops a cable some time after its node: switched on meanwhile, the node would get none.
        apply.delete_link(node.link)
        apply.wait_for_disk(node)
        remove_cgroups(f"{lab.name}/{node.name}")


def power_on(lab: Lab, nodes: Sequence[LabNode], *, mirror: Path, report: Report) -> None:
    """Switches some nodes on and waits for their sshd."""
    _require_snapshot(lab)
    steps = plan.plan_power_on(lab, look(lab), [node.name for node in nodes])
    apply.apply_up(lab, steps, mirror=mirror, report=report)


def _require_snapshot(lab: Lab) -> None:
    """Raises:
    BadInput: what the nodes stand on is not mounted, as after this machine was booted.
    """
    if not restore.is_mounted(lab):
        raise BadInput(
            f"work on nodes of lab {lab.name}",
            found=f"its snapshot {lab.snapshot} is not mounted",
            fix=f"provision lab up --name {lab.name}",
        )


def reset(lab: Lab, nodes: Sequence[LabNode], *, mirror: Path, report: Report) -> None:
    """Gives nodes back their first state: a snapshot's, or blank with new keys and no limits."""
    _require_snapshot(lab)
    report(f"power off {' '.join(node.name for node in nodes)}")
    power_off(lab, nodes)
    for node in nodes:
        apply.delete_node(node)
    if lab.snapshot is None:
        apply.forget_trust(lab)
    elif len(nodes) == lab.count:
        lab.restored.unlink(missing_ok=True)  # the snapshot's keys and secrets fit its nodes again
    up(lab, mirror=mirror, report=report)


def shape(lab: Lab, node: LabNode, *, rate: str | None, direction: Direction) -> None:
    """Limits a node's cable now and after it has been off; None takes the limit away.

    Raises:
        BadInput: `rate` is no rate.
    """
    if rate is not None:
        bits_per_second(rate)
    wanted = record.load_shape(node).with_rate(rate, direction)
    pid = look(lab).keepers.get(node.name)
    if pid is not None:
        apply.reshape(node, pid=pid, wanted=wanted)
    record.save_shape(node, wanted)
