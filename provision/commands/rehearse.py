"""`provision image rehearse`: two machines made from an image, in a lab, and what they must show."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provision.commands.demo import machines_of
from provision.core.image_manifest import PROVEN, REFUSED
from provision.core.join import Call
from provision.edges import ssh
from provision.edges.join_server import listening
from provision.errors import CommandFailed, ProvisionError
from provision.fleet.image_files import Unpacked, read_manifest, scan, sign_and_write, unpack
from provision.fleet.restore import Arrivals, play
from provision.lab import apply, disks
from provision.lab import lab as labs
from provision.lab.disks import Kind
from provision.lab.layout import Lab, LabNode, folder_of
from provision.lab.record import write_file
from provision.model import Machine

Report = Callable[[str], None]
_BOOT_SECONDS = 120.0
_LOOK = """\
import glob, json, os
def text(path):
    return open(path).read().strip() if os.path.exists(path) else ""
print(json.dumps({
    "machine-id": text("/etc/machine-id"),
    "host keys": sorted(" ".join(text(key).split()[:2]) for key in glob.glob("/etc/ssh/ssh_host_*_key.pub")),
    "name": os.uname().nodename,
    "hosts": text("/etc/hosts"),
    "boot": text("/proc/sys/kernel/random/boot_id"),
    "digest": json.loads(text("/etc/clusterwright/environment.json") or "{}").get("digest", ""),
    "state": json.loads(text("/var/lib/clusterwright/first_boot.json") or "{}"),
    "mounted": os.path.ismount("/data"),
    "written": os.path.exists("/dev/vdb") and any(open("/dev/vdb", "rb").read(1 << 20)),
    "bytes": os.statvfs("/data").f_blocks * os.statvfs("/data").f_frsize if os.path.ismount("/data") else 0,
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that an image must show, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a rehearsal plays: the image, unpacked, and the lab of two machines made from it."""

    image: Mapping[str, Any]
    lab: Lab
    mirror: Path
    environment: Mapping[str, str]
    report: Report


def rehearse_image(
    folder: Path,
    *,
    key: Path,
    name: str,
    subnet: str,
    cache: Path,
    environment: Mapping[str, str],
    report: Report,
) -> tuple[dict[str, Any], list[Check]]:
    """Looks into the image in `folder`, boots it, and signs the verdict into its manifest.

    Raises:
        BadInput: the image is damaged or not signed with `key`.
    """
    image = read_manifest(folder, key=key)
    report(f"unpack {image['id']}")
    unpacked = unpack(folder, image, cache)
    report("look for what is left of one machine")
    left = scan(unpacked)
    checks = [Check(name="nothing left", passed=not left, found="; ".join(left) or "nothing")]
    if not left:
        lab = _lab(name, subnet, unpacked)
        checks += _played(
            Stage(
                image=image, lab=lab, mirror=cache / "mirror/current", environment=environment, report=report
            )
        )
    verdict = PROVEN if all(check.passed for check in checks) else REFUSED
    when = datetime.now(UTC).isoformat(timespec="seconds")
    rehearsal = {"verdict": verdict, "when": when, "checks": [asdict(check) for check in checks]}
    image = {**image, "rehearsal": rehearsal}
    sign_and_write(folder, image, key=key)
    return image, checks


def _lab(name: str, subnet: str, unpacked: Unpacked) -> Lab:
    asked = labs.Asked(subnet=subnet, count=2, disk_bytes=unpacked.data.stat().st_size)
    return labs.wanted_lab(name, asked, existing=None, base=unpacked.root, data_image=unpacked.data)


def _played(stage: Stage) -> list[Check]:
    checks: list[Check] = []
    with labs.locked(stage.lab.folder):
        labs.down(folder_of(stage.lab.name), report=stage.report)
        try:
            checks += _joined(stage)
            checks += _rebooted(stage)
            checks += [_disks(stage, *case) for case in disk_cases(stage.lab.disk_bytes)]
        except ProvisionError as e:
            checks.append(Check(name="the rehearsal itself", passed=False, found=str(e)))
        finally:
            labs.down(stage.lab.folder, report=stage.report)
    return checks


def _joined(stage: Stage) -> list[Check]:
    """Both machines boot, call and get their names; restore.yml makes them nodes and tests them."""
    arrivals = Arrivals(
        machines_of(stage.lab), lambda name, call: stage.report(f"{name} calls from {call.address}")
    )
    secret = secrets.token_hex(32)
    with listening("0.0.0.0", 0, secret=secret, on_call=arrivals.on_call) as port:
        told = json.dumps({"controller": f"{stage.lab.gateway}:{port}", "secret": secret})
        write_file(stage.lab.seed / "etc/clusterwright/join.json", told, mode=0o600)
        labs.up(stage.lab, mirror=stage.mirror, report=stage.report)
        arrivals.wait(_BOOT_SECONDS)
    seen = [_look(machine) for machine in machines_of(stage.lab)]
    play("restore.yml", stage.lab.inventory, on_line=stage.report, environment=stage.environment)
    return [
        *different(seen),
        announced(seen, arrivals.arrived),
        Check(name="joins, smoke test passes", passed=True, found="restore.yml passed"),
    ]


def different(seen: Sequence[Mapping[str, Any]]) -> list[Check]:
    checks = []
    for what in ("machine-id", "host keys"):
        first, second = (one[what] for one in seen)
        apart = bool(first) and bool(second) and not set(_listed(first)) & set(_listed(second))
        checks.append(
            Check(name=f"different {what}", passed=apart, found=f"{_short(first)} and {_short(second)}")
        )
    return checks


def announced(seen: Sequence[Mapping[str, Any]], arrived: Mapping[str, Call]) -> Check:
    said = sorted(key for call in arrived.values() for key in call.host_keys)
    held = sorted(key for one in seen for key in one["host keys"])
    return Check(
        name="host keys as announced", passed=said == held, found=f"{len(held)} keys, {len(said)} announced"
    )


def _rebooted(stage: Stage) -> list[Check]:
    """What a reboot must leave as it is, and what must be right after it."""
    machines = machines_of(stage.lab)
    before = [_look(machine) for machine in machines]
    for machine in machines:
        ssh.run(machine, ("systemctl", "reboot"), timeout_seconds=30, check=False)
    after = [_back(machine, one["boot"]) for machine, one in zip(machines, before, strict=True)]
    return after_a_reboot(machines, before, after, environment=stage.image["environment"])


def after_a_reboot(
    machines: Sequence[Machine],
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    *,
    environment: str,
) -> list[Check]:
    """Whether machines are what they were, and have names, disks and the image's environment."""
    pairs = list(zip(before, after, strict=True))
    kept = all(old[what] == new[what] for what in ("machine-id", "host keys") for old, new in pairs)
    lines = [f"{machine.address} {machine.name}" for machine in machines]
    named = all(one["name"] == machine.name for one, machine in zip(after, machines, strict=True))
    hosts = all(line in one["hosts"].splitlines() for one in after for line in lines)
    digests = sorted({one["digest"] for one in after})
    return [
        Check(name="identity outlives a reboot", passed=kept, found="kept" if kept else "changed"),
        Check(name="name and /etc/hosts", passed=named and hosts, found=_names(after, hosts)),
        Check(
            name="data disk after a reboot", passed=all(one["mounted"] for one in after), found=_sizes(after)
        ),
        Check(name="environment digest", passed=digests == [environment], found=_short(digests)),
    ]


Case = tuple[str, list[Kind], int | None, Callable[[Mapping[str, Any]], bool]]


def disk_cases(size: int) -> list[Case]:
    """Disks of a machine at its first boot: what it must say, and do, with each."""
    return [
        ("boot without a data disk", [], None, lambda seen: not seen["mounted"] and "no disk" in _data(seen)),
        (
            "boot with two copies of it",
            [Kind.own, Kind.copy],
            None,
            lambda seen: not seen["mounted"] and "2 disks" in _data(seen),
        ),
        (
            "boot with a blank disk",
            [Kind.blank],
            None,
            lambda seen: not seen["mounted"] and not seen["written"] and "no disk" in _data(seen),
        ),
        (
            "boot with a grown disk",
            [Kind.own],
            size + size // 8,
            lambda seen: bool(seen["bytes"] > size),
        ),
    ]


def _data(seen: Mapping[str, Any]) -> str:
    return str(seen["state"].get("data", ""))


def _disks(
    stage: Stage,
    name: str,
    kinds: list[Kind],
    own_bytes: int | None,
    is_right: Callable[[Mapping[str, Any]], bool],
) -> Check:
    """A machine at its first boot with these disks."""
    stage.report(name)
    node = stage.lab.nodes[-1]
    renew(stage.lab, node, kinds, own_bytes=own_bytes)
    machine = switch_on(stage.lab, node, mirror=stage.mirror, report=stage.report)
    seen = first_boot(machine)
    return Check(name=name, passed=is_right(seen), found=_data(seen))


def renew(lab: Lab, node: LabNode, kinds: Sequence[Kind], *, own_bytes: int | None = None) -> None:
    """Makes one machine of a lab anew, with these disks; it is off then."""
    labs.power_off(lab, [node])
    apply.delete_node(node)
    apply.make_files(lab, node)
    disks.choose(lab, node, kinds, own_bytes=own_bytes)


def switch_on(lab: Lab, node: LabNode, *, mirror: Path, report: Report) -> Machine:
    """Boots a machine, whose host keys may be new."""
    labs.power_on(lab, [node], mirror=mirror, report=report)
    apply.describe(lab)
    return machines_of(lab)[lab.nodes.index(node)]


def first_boot(machine: Machine) -> Mapping[str, Any]:
    """What a machine shows once its first boot has dealt with its disks."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while True:
        seen = _look(machine)
        if _data(seen):
            return seen
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"boot {machine.name}", found="its first boot says nothing", fix="Look at its journal."
            )
        time.sleep(0.5)


def _back(machine: Machine, boot: str) -> Mapping[str, Any]:
    """What a machine shows after a reboot."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while True:
        try:
            seen = _look(machine)
            if seen["boot"] != boot:
                return seen
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def _look(machine: Machine) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(
        ssh.run(machine, ("python3", "-c", _LOOK), timeout_seconds=30).stdout
    )
    return found


def _listed(value: object) -> list[str]:
    return value if isinstance(value, list) else [str(value)]


def _short(value: object) -> str:
    return ", ".join(text.rsplit(" ", 1)[-1][-12:] for text in _listed(value)) or "none"


def _names(seen: Sequence[Mapping[str, Any]], hosts: bool) -> str:
    return ", ".join(one["name"] for one in seen) + ("" if hosts else "; /etc/hosts lacks a node")


def _sizes(seen: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['bytes'] / 2**30:.1f} GiB" if one["mounted"] else "not mounted" for one in seen)
