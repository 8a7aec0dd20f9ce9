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
    make_bridge = "make bridge"
    start_server = "start file server"
    make_files = "make files"
    start = "start"
    connect = "connect"
    wait = "wait for sshd"
    try_cables = "try cables"
    describe = "write inventory"
    stop_processes = "stop processes"
    unmount = "unmount"
    detach_disk = "detach disk"
    delete_link = "delete link"
    remove_groups = "remove control groups"
    delete_files = "delete files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change: what is done, to what, and why."""

    action: Action
    target: str
    reason: str


def plan_up(lab: Lab, observed: Observed, *, made: frozenset[str], has_image: bool = True) -> list[Step]:
    """Steps that bring up what is missing of `lab`; a running lab gets none but the description.

    Args:
        made: names of the nodes whose files are complete.
        has_image: whether the image that the nodes start from is in the cache.
    """
    steps = []
    if not has_image:
        reason = "it is not in the cache; takes about half a minute"
        steps.append(Step(action=Action.build_image, target=str(lab.base), reason=reason))
    if observed.inotify_instances < INOTIFY_INSTANCES:
        reason = f"{observed.inotify_instances} are too few for many nodes, {INOTIFY_INSTANCES} are enough"
        steps.append(Step(action=Action.raise_limit, target="fs.inotify.max_user_instances", reason=reason))
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
    return [
        *steps,
        Step(action=Action.try_cables, target=names[0], reason="a firewall here may forbid them"),
        Step(action=Action.describe, target=lab.name, reason="so that others find the nodes"),
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
    if observed.files:
        steps.append(
            Step(action=Action.delete_files, target="of the lab", reason="nothing uses them any more")
        )
    return steps
