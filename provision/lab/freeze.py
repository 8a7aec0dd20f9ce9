"""Makes a snapshot of a lab: its nodes are shut down, copied, and switched on again as they were."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from provision.edges import process
from provision.errors import BadInput, CommandFailed
from provision.lab import apply, argv, disks, observe, plan, snapshot
from provision.lab.fault import injection
from provision.lab.fault import record as faults
from provision.lab.fault.catalogue import CATALOGUE
from provision.lab.lab import Report, look, power_off
from provision.lab.layout import Lab, LabNode

_SHUTDOWN_SECONDS = 30.0
_FREEZE_SECONDS = 3600.0
_ROOM_BYTES = 256 << 20  # a file system's own tables
_WRITES_BYTES = 8 << 30  # of a node of a restored lab, beside its disk; the file grows only as it is written


def freeze(lab: Lab, name: str, *, mirror: Path, report: Report) -> snapshot.Snapshot:
    """Keeps a lab as it is now: disks, keys, secrets, inventory, limits and faults.

    Raises:
        BadInput: there is such a snapshot, a node or a fault cannot be kept, or the disk is too full.
        CommandFailed: a step did not succeed; nothing is called a snapshot then.
    """
    root = lab.folder.parent.parent / snapshot.SNAPSHOT_ROOT.name
    folder, half = snapshot.folder_of(name, root), snapshot.half_of(lab.name, root)
    needed = _refuse(lab, name, folder)
    shutil.rmtree(half, ignore_errors=True)
    root.mkdir(mode=0o700, exist_ok=True)
    snapshot.require_space(root, needed, asked=f"freeze lab {lab.name}")
    half.mkdir(mode=0o700)
    were_on = [node.name for node in lab.nodes if node.name in look(lab).keepers]
    _shut_down(lab, report)
    try:
        _capture(lab, half, needed, report)
        snapshot.save(half, lab, made=datetime.now(UTC).isoformat(timespec="seconds"))
        half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
        steps = plan.plan_power_on(lab, look(lab), were_on)
        if any(node.unstruck.exists() for node in lab.nodes):
            steps += plan.with_faults(lab.name, [])
        apply.apply_up(lab, steps, mirror=mirror, report=report)
    return snapshot.load(name, root)


def _refuse(lab: Lab, name: str, folder: Path) -> int:
    """How many bytes a snapshot takes.

    Raises:
        BadInput: it cannot be made.
    """
    asked = f"freeze lab {lab.name} as {name}"
    if folder.exists():
        raise BadInput(
            asked,
            found="there is a snapshot of that name",
            fix=f"Choose another, or remove it: provision lab snapshot remove {name}",
        )
    for node in lab.nodes:
        if not node.folder.exists():
            fix = f"Finish the lab first: provision lab up --name {lab.name}"
            raise BadInput(asked, found=f"{node.name} was never made", fix=fix)
        for active in faults.load(node):
            if CATALOGUE[active.fault].needs_ranks:
                raise BadInput(
                    asked,
                    found=f"{node.name} has the fault {active.fault}, which is one of a job that runs",
                    fix=f"provision lab fault clear {node.name} --name {lab.name}",
                )
    return round(sum(_bytes_of(lab, node) for node in lab.nodes) * 1.05) + _ROOM_BYTES


def _bytes_of(lab: Lab, node: LabNode) -> int:
    layers = (*snapshot.layers_of(lab, node), node.upper)
    shown = process.run(("du", "--summarize", "--block-size=1", *layers), timeout_seconds=120).stdout
    written = sum(int(line.split()[0]) for line in shown.splitlines())
    return written + sum(snapshot.disk_bytes(disk) for disk in disks.of(node.folder))


def _shut_down(lab: Lab, report: Report) -> None:
    """Has nodes shut down as by their power button, then pulls the plug; faults that go with it are noted."""
    for node in lab.nodes:
        if node.faults.exists():
            node.unstruck.touch()
    report(f"shut down {' '.join(node.name for node in lab.nodes)}")
    for keeper in look(lab).keepers.values():
        init = injection.init_of(keeper)
        if init is not None:
            _press_power_button(init)
    deadline = time.monotonic() + _SHUTDOWN_SECONDS
    while observe.keepers_in(lab.folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    power_off(lab, lab.nodes)


def _press_power_button(init: int) -> None:
    words = (
        "nsenter",
        f"--target={init}",
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--root",
        "--wd",
        "--",
    )
    process.run((*words, "systemctl", "poweroff", "--no-block"), timeout_seconds=20, check=False)


def _capture(lab: Lab, half: Path, needed: int, report: Report) -> None:
    size = None
    if not snapshot.shares_blocks(half):
        if snapshot.has_xfs():
            size = needed + lab.count * (2 * lab.disk_bytes + _WRITES_BYTES)
        else:
            report("no file system here shares blocks: each `up --from` will copy the disks")
    said: list[str] = []

    def on_line(line: str) -> None:
        said.append(line)
        report(f"freeze: {line}")

    words = argv.capture(lab, python=sys.executable, target=half, file_system_bytes=size)
    status = process.stream(words, timeout_seconds=_FREEZE_SECONDS, on_line=on_line)
    if status != 0:
        raise CommandFailed(
            f"freeze lab {lab.name}",
            found=_ends(status, said),
            fix="Its last lines say why; the lab is as before.",
        )


def _ends(status: int, said: Sequence[str]) -> str:
    return "\n".join([f"the copy ended with status {status}", *said[-10:]])
