"""`provision image rehearse`: two machines made from an image, in a lab, and what they must show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provision.commands.demo import machines_of
from provision.edges import ssh
from provision.edges.files import write_file
from provision.edges.playbook import play
from provision.errors import BadInput, CommandFailed, ProvisionError
from provision.images.checks import (
    Check,
    DiskCase,
    Seen,
    after_a_reboot,
    announced,
    different,
    disk_cases,
    said_of_disks,
)
from provision.images.files import Unpacked, read_manifest, scan, sign_and_write, unpack
from provision.images.manifest import PROVEN, REFUSED
from provision.join.protocol import Call
from provision.join.server import listening
from provision.join.tokens import Tokens
from provision.join.user_data import write_user_data
from provision.lab import apply, disks
from provision.lab import lab as labs
from provision.lab.disks import Kind
from provision.lab.layout import Lab, LabNode, folder_of
from provision.model import Machine
from provision.nodes.arrivals import Arrivals

Report = Callable[[str], None]
_BOOT_SECONDS = 120.0
# Of a site's variables, those that say what is on the disks of its image, and where.
ON_DISKS = (
    "cluster_data_path",
    "cluster_environment_name",
    "cluster_environment_prefix",
    "cluster_models_path",
    "cluster_store_path",
    "cluster_user",
    "cluster_without",
    "conda_env_conda",
    "job_user_uid",
    "miniconda_prefix",
    "ssh_trust_authorized_keys",
)
_LOOK = """\
import glob, json, os, sys
data = sys.argv[1]
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
    "fenced": os.system("nft list table inet clusterwright >/dev/null 2>&1") == 0,
    "mounted": os.path.ismount(data),
    "written": os.path.exists("/dev/vdb") and any(open("/dev/vdb", "rb").read(1 << 20)),
    "bytes": os.statvfs(data).f_blocks * os.statvfs(data).f_frsize if os.path.ismount(data) else 0,
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a rehearsal plays: the image, unpacked, and the lab of two machines made from it.

    `variables` are those of the image's site, of ON_DISKS.
    """

    image: Mapping[str, Any]
    variables: Mapping[str, Any]
    key: Path
    join_key: Path
    lab: Lab
    mirror: Path
    environment: Mapping[str, str]
    report: Report

    @property
    def data_path(self) -> str:
        return str(self.image.get("data_path", "/data"))


def rehearse_image(
    folder: Path,
    *,
    key: Path,
    variables: Mapping[str, Mapping[str, Any]],
    name: str,
    subnet: str,
    cache: Path,
    environment: Mapping[str, str],
    report: Report,
) -> tuple[dict[str, Any], list[Check]]:
    """Looks into the image in `folder`, boots it, and signs the verdict into its manifest.

    Args:
        variables: those of ON_DISKS of each node of the site; of any, where the image's own has left it.

    Raises:
        BadInput: the image is damaged or not signed with `key`, its machines believe another controller, or
            there is a lab of that name.
    """
    if folder_of(name).exists():
        raise BadInput(
            f"rehearse in a lab called {name}",
            found="there is one, or what a rehearsal that was killed left",
            fix=f"Choose another --name, or give it up: provision lab down --name {name}",
        )
    image = read_manifest(folder, key=key)
    report(f"unpack {image['id']}")
    unpacked = unpack(folder, image, cache)
    join_key = key.with_name("join_key")
    _refuse_another_controller(unpacked, join_key)
    report("look for what is left of one machine")
    left = scan(unpacked)
    checks = [Check(name="nothing left", passed=not left, found="; ".join(left) or "nothing")]
    if not left:
        lab = _lab(name, subnet, unpacked)
        checks += _played(
            Stage(
                image=image,
                variables=variables.get(image["node"]) or next(iter(variables.values()), {}),
                key=key,
                join_key=join_key,
                lab=lab,
                mirror=cache / "mirror/current",
                environment=environment,
                report=report,
            )
        )
    verdict = PROVEN if all(check.passed for check in checks) else REFUSED
    when = datetime.now(UTC).isoformat(timespec="seconds")
    rehearsal = {"verdict": verdict, "when": when, "checks": [asdict(check) for check in checks]}
    image = {**image, "rehearsal": rehearsal}
    sign_and_write(folder, image, key=key)
    return image, checks


def _refuse_another_controller(unpacked: Unpacked, join_key: Path) -> None:
    path, public = unpacked.root / "etc/clusterwright/join.json", join_key.with_name("join_key.pub")
    held = _controller_key_in(path)
    if not public.is_file() or held.split()[:2] != public.read_text().split()[:2]:
        raise BadInput(
            "rehearse as the controller that the image's machines believe",
            found=f"its key is not {public}" if held else "it holds none: an earlier version baked it",
            fix="Bake the image again, on this controller.",
        )


def _controller_key_in(path: Path) -> str:
    """Of the image, in which anything may lie under this name."""
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return ""
    held = found.get("controller_key", "") if isinstance(found, dict) else ""
    return held if isinstance(held, str) else ""


def _lab(name: str, subnet: str, unpacked: Unpacked) -> Lab:
    asked = labs.Asked(subnet=subnet, count=2, disk_bytes=unpacked.data.stat().st_size)
    return labs.wanted_lab(name, asked, existing=None, base=unpacked.root, data_image=unpacked.data)


def _played(stage: Stage) -> list[Check]:
    checks: list[Check] = []
    with labs.locked(stage.lab.folder):
        try:
            checks += _joined(stage)
            checks += _rebooted(stage)
            checks += [_disks(stage, case) for case in disk_cases(stage.lab.disk_bytes)]
        except ProvisionError as e:
            checks.append(Check(name="the rehearsal itself", passed=False, found=str(e)))
        finally:
            labs.down(stage.lab.folder, report=stage.report)
    return checks


def _joined(stage: Stage) -> list[Check]:
    """Both machines boot, call and get their names; restore.yml makes them nodes and tests them."""
    arrivals = called(stage.lab, stage.join_key, mirror=stage.mirror, report=stage.report)
    seen = [_look(machine, stage.data_path) for machine in machines_of(stage.lab)]
    return [*different(seen), announced(seen, arrivals.arrived), _restored(stage)]


def called(lab: Lab, join_key: Path, *, mirror: Path, report: Report) -> Arrivals:
    """Boots the machines of a lab with a token each as their user data, and waits until all have called.

    Args:
        join_key: the private half of the key that their image holds.

    Raises:
        CommandFailed: some did not call in time.
    """
    machines, tokens = machines_of(lab), Tokens(folder=lab.folder / "secrets")

    def on_arrival(name: str, call: Call) -> None:
        report(f"{name} calls from {call.address}")

    arrivals = Arrivals(machines, tokens, join_key, on_arrival)
    expected = [machine.address for machine in machines]
    labs.up_network(lab, mirror=mirror, report=report)
    with listening(lab.gateway, 0, expected=expected, on_call=arrivals.on_call, report=report) as port:
        told, expires = f"{lab.gateway}:{port}", time.time() + 2 * _BOOT_SECONDS
        write_user_data(lab.user_data, machines, tokens, controller=told, shared=False, expires=expires)
        labs.up(lab, mirror=mirror, report=report)
        arrivals.wait(_BOOT_SECONDS)
    return arrivals


def _restored(stage: Stage) -> Check:
    found = ""
    said = {**stage.variables, "cluster_data_path": stage.data_path}
    write_file(stage.lab.inventory / "group_vars" / "all" / "image.yml", json.dumps(said) + "\n")
    try:
        words = ("playbooks/restore.yml", "--extra-vars", json.dumps({"restore_image_key": str(stage.key)}))
        play(stage.lab.inventory, words, on_line=stage.report, environment=stage.environment)
    except CommandFailed as e:
        found = str(e)
    return Check(name="joins, smoke test passes", passed=not found, found=found or "restore.yml passed")


def _rebooted(stage: Stage) -> list[Check]:
    """What a reboot must leave as it is, and what must be right after it."""
    machines = machines_of(stage.lab)
    before = [_look(machine, stage.data_path) for machine in machines]
    for machine in machines:
        # A second later, so that the connection does not end before this command.
        reboot = ("systemd-run", "--quiet", "--on-active=1", "systemctl", "reboot")
        ssh.run(machine, reboot, timeout_seconds=30)
    path = stage.data_path
    after = [_back(machine, path, one["boot"]) for machine, one in zip(machines, before, strict=True)]
    return after_a_reboot(machines, before, after, environment=stage.image["environment"])


def _disks(stage: Stage, case: DiskCase) -> Check:
    """A machine at its first boot with these disks."""
    stage.report(case.name)
    node = stage.lab.nodes[-1]
    renew(stage.lab, node, [Kind(kind) for kind in case.disks], own_bytes=case.own_bytes)
    machine = switch_on(stage.lab, node, mirror=stage.mirror, report=stage.report)
    seen = first_boot(machine, stage.data_path)
    return Check(name=case.name, passed=case.is_right(seen), found=said_of_disks(seen))


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


def first_boot(machine: Machine, data_path: str = "/data") -> Seen:
    """What a machine shows once its first boot has dealt with its disks."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while True:
        seen = _look(machine, data_path)
        if said_of_disks(seen):
            return seen
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"boot {machine.name}", found="its first boot says nothing", fix="Look at its journal."
            )
        time.sleep(0.5)


def _back(machine: Machine, data_path: str, boot: str) -> Seen:
    """What a machine shows after a reboot."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while True:
        try:
            seen = _look(machine, data_path)
            if seen["boot"] != boot:
                return seen
        except CommandFailed:  # it is on its way
            pass
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"reboot {machine.name}", found="it did not come back", fix="Look at its console."
            )
        time.sleep(0.5)


def _look(machine: Machine, data_path: str) -> Seen:
    words = ("python3", "-c", _LOOK, data_path)
    found: Seen = json.loads(ssh.run(machine, words, timeout_seconds=30).stdout)
    return found
