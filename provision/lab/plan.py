"""Which steps lead from what the kernel shows to what is wanted: decided here, done in `apply`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from provision.lab.layout import Lab
from provision.lab.limits import INOTIFY_INSTANCES
from provision.lab.observe import Observed


class Action(StrEnum):
    build_image = "build image"
    raise_limit = "raise limit"
    mount_snapshot = "mount snapshot"
    restore = "restore keys and secrets"
    make_bridge = "make bridge"
    start_server = "start file server"
    make_files = "make files"
    start = "start"
    connect = "connect"
    wait = "wait for sshd"
    mend = "mend faults"
    try_cables = "try cables"
    describe = "write inventory"
    inject = "inject faults"
    stop_processes = "stop processes"
    empty_snapshot = "empty"
    unmount = "unmount"
    release_snapshot = "wait for release"
    detach_disk = "detach disk"
    delete_link = "delete link"
    remove_groups = "remove control groups"
    delete_half = "delete half a snapshot"
    delete_files = "delete files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change: what is done, to what, and why."""

    action: Action
    target: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring:
    """What a lab has of its snapshot. mounted: its files are there. keys: keys and secrets are the lab's."""

    name: str
    mounted: bool
    keys: bool


def plan_up(
    lab: Lab,
    observed: Observed,
    *,
    made: frozenset[str],
    has_image: bool = True,
    snapshot: Restoring | None = None,
    unstruck: bool = False,
) -> list[Step]:
    """Steps that bring up what is missing of `lab`; a running lab gets none but the description.

    Args:
        made: names of the nodes whose files are complete.
        has_image: whether the image that the nodes start from is in the cache.
        snapshot: what the lab stands on, if anything.
        unstruck: whether nodes have faults that went with their power.
    """
    steps = []
    if not has_image:
        reason = "it is not in the cache; takes about half a minute"
        steps.append(Step(action=Action.build_image, target=str(lab.base), reason=reason))
    if observed.inotify_instances < INOTIFY_INSTANCES:
        reason = f"{observed.inotify_instances} are too few for many nodes, {INOTIFY_INSTANCES} are enough"
        steps.append(Step(action=Action.raise_limit, target="fs.inotify.max_user_instances", reason=reason))
    steps += _plan_snapshot(snapshot) if snapshot else []
    if not observed.bridge:
        steps.append(Step(action=Action.make_bridge, target=lab.bridge, reason="there is no such link"))
    if observed.server is None:
        steps.append(Step(action=Action.start_server, target=lab.gateway, reason="nobody serves the mirror"))
    names = [node.name for node in lab.nodes]
    steps += [
        Step(action=Action.make_files, target=name, reason="it has none yet")
        for name in names
        if name not in made
    ]
    steps += plan_power_on(lab, observed, names)
    checks = [
        Step(action=Action.try_cables, target=names[0], reason="a firewall here may forbid them"),
        Step(action=Action.describe, target=lab.name, reason="so that others find the nodes"),
    ]
    if unstruck or (snapshot and made < set(names)):
        return [*steps, *with_faults(lab.name, checks)]
    return [*steps, *checks]


def _plan_snapshot(snapshot: Restoring) -> list[Step]:
    steps = []
    if not snapshot.mounted:
        steps.append(Step(action=Action.mount_snapshot, target=snapshot.name, reason="nodes stand on it"))
    if not snapshot.keys:
        steps.append(Step(action=Action.restore, target=snapshot.name, reason="the lab has none yet"))
    return steps


def with_faults(name: str, checks: Sequence[Step]) -> list[Step]:
    """These steps on nodes without faults, which come back afterwards."""
    return [
        Step(action=Action.mend, target=name, reason="half of a fault may have stayed in files"),
        *checks,
        Step(action=Action.inject, target=name, reason="they went with the power"),
    ]


def plan_power_on(lab: Lab, observed: Observed, names: Sequence[str]) -> list[Step]:
    """Steps that start and connect those of the nodes `names` that are off."""
    links = {node.name: node.link for node in lab.nodes}
    off = [name for name in names if name not in observed.keepers]
    loose = [name for name in names if not observed.links.get(links[name], False)]
    return [
        *(Step(action=Action.start, target=name, reason="it is off") for name in off),
        *(
            Step(action=Action.connect, target=name, reason="its cable is not in the bridge")
            for name in loose
        ),
        *(Step(action=Action.wait, target=name, reason="it may still be booting") for name in names),
    ]


def plan_down(bridge: str, observed: Observed) -> list[Step]:
    """Steps that remove every trace of a lab that the kernel shows, in an order that always works."""
    steps = []
    if observed.pids:
        steps.append(
            Step(
                action=Action.stop_processes,
                target=" ".join(str(pid) for pid in sorted(observed.pids)),
                reason="they are the nodes and the file server",
            )
        )
    if observed.written:
        reason = "the snapshot stays as it was frozen"
        steps.append(Step(action=Action.empty_snapshot, target=str(observed.written), reason=reason))
    steps += [
        Step(action=Action.unmount, target=str(place), reason="it is mounted on this machine")
        for place in observed.mounts
    ]
    steps += [
        Step(action=Action.detach_disk, target=device, reason="a file of the lab is behind it")
        for device in observed.loops
    ]
    links = [*sorted(observed.links), *([bridge] if observed.bridge else [])]
    steps += [Step(action=Action.delete_link, target=link, reason="it is the lab's") for link in links]
    if observed.cgroups:
        steps.append(
            Step(action=Action.remove_groups, target="of the nodes", reason="nobody is left in them")
        )
    if observed.half:
        reason = "it was never finished"
        steps.append(Step(action=Action.delete_half, target=str(observed.half), reason=reason))
    if observed.files:
        steps.append(
            Step(action=Action.delete_files, target="of the lab", reason="nothing uses them any more")
        )
    return [
        *steps,
        *(
            Step(action=Action.release_snapshot, target=str(image), reason="the kernel lets go of it last")
            for image in observed.snapshots
        ),
    ]
