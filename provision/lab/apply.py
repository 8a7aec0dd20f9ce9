"""Does the steps that `plan` decides."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from provision.edges import process
from provision.errors import CommandFailed
from provision.lab import argv, disks, observe, record, restore, shape, snapshot, written_site
from provision.lab.cgroups import remove_cgroups
from provision.lab.fault import injection
from provision.lab.image.build import ensure_image
from provision.lab.layout import MIRROR_PORT, Lab, LabNode, cores_of
from provision.lab.limits import raise_inotify_instances
from provision.lab.plan import Action, Step
from provision.roles.ssh_trust.host_keys import public_key

Report = Callable[[str], None]
_BOOT_SECONDS = 120.0
_KEY_BYTES = 1 << 14
_PATIENCE_SECONDS = 30.0
_KEEPER_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def apply_up(lab: Lab, steps: Iterable[Step], *, mirror: Path, report: Report) -> None:
    """Does the steps of a plan that brings nodes up.

    Args:
        mirror: the folder that the file server shows.

    Raises:
        CommandFailed: a step did not succeed; what is done stays done, and the next `up` goes on from there.
    """
    nodes = {node.name: node for node in lab.nodes}
    actions: Mapping[Action, Callable[[str], None]] = {
        Action.build_image: lambda _: ensure_image(lab.base, release=lab.release, report=report),
        Action.raise_limit: lambda _: raise_inotify_instances(),
        Action.make_bridge: lambda _: _run_all(argv.make_bridge(lab)),
        Action.start_server: lambda _: _start_server(lab, mirror),
        Action.mount_snapshot: lambda _: restore.mount(lab),
        Action.restore: lambda _: restore.restore_files(lab),
        Action.make_files: lambda name: make_files(lab, nodes[name], report=report),
        Action.start: lambda name: _start(lab, nodes[name]),
        Action.connect: lambda name: _connect(lab, nodes[name]),
        Action.wait: lambda name: _wait_for_sshd(lab, nodes[name]),
        Action.mend: lambda _: injection.mend(lab),
        Action.try_cables: lambda name: try_cables(lab, name),
        Action.describe: lambda _: describe(lab),
        Action.inject: lambda _: injection.inject_again(lab),
    }
    for step in steps:
        report(f"{step.action} {step.target}")
        actions[step.action](step.target)


def apply_down(folder: Path, steps: Iterable[Step], *, report: Report) -> None:
    """Does the steps of a plan that takes a lab down. What has gone by itself meanwhile is no error."""
    actions: Mapping[Action, Callable[[str], None]] = {
        Action.stop_processes: lambda pids: kill([int(pid) for pid in pids.split()]),
        Action.empty_snapshot: lambda place: restore.delete_nodes(Path(place)),
        Action.unmount: lambda place: _run_all([("umount", "--lazy", place)]),
        Action.release_snapshot: lambda image: _wait_for_release(Path(image)),
        Action.detach_disk: lambda device: _detach(folder, device),
        Action.delete_link: delete_link,
        Action.remove_groups: lambda _: remove_cgroups(folder.name),
        Action.delete_half: lambda half: _delete_half(Path(half)),
        Action.delete_files: lambda _: _delete_files(folder),
    }
    for step in steps:
        report(f"{step.action} {step.target}")
        actions[step.action](step.target)


def kill(pids: Sequence[int]) -> None:
    """Pulls the plug: ends processes at once and waits until the kernel has let go of them."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait(lambda: not any(_lives(pid) for pid in pids), what=f"processes {pids} to end")


def _lives(pid: int) -> bool:
    """Whether a process still runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_disk(node: LabNode) -> None:
    """Waits until the kernel has written back and released the node's disk: two users would destroy it."""
    _wait(lambda: not observe.loops_in(node.folder), what=f"the disk of {node.name} to be released")


def _wait(is_done: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"wait for {what}",
                found=f"not yet after {_PATIENCE_SECONDS:.0f} s",
                fix="Run the command again.",
            )
        time.sleep(0.02)


def _run_all(commands: Iterable[shape.Argv]) -> None:
    for words in commands:
        process.run(words, timeout_seconds=30)


def make_files(lab: Lab, node: LabNode, *, report: Report = lambda _: None) -> None:
    """Gives a node what it had in the lab's snapshot, or a first state: complete or not at all."""
    if node.folder.exists():
        return  # its snapshot was not mounted when the steps were planned
    partial = node.folder.with_name(f"{node.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("", "work", "upper"):
        (partial / name).mkdir(parents=True)
        (partial / name).chmod(0o755)
    if not restore.restore_node(lab, node, partial, report=report):
        _fill_blank(lab, node, partial)
    partial.rename(node.folder)


def _fill_blank(lab: Lab, node: LabNode, partial: Path) -> None:
    """A layer with the lab's key and the node's user data, and a disk."""
    told = lab.user_data / f"{node.name}.json"
    if told.is_file():
        place = partial / "upper/var/lib/cloud/instance/user-data.txt"
        record.write_file(place, told.read_text(), mode=0o600)
    keys = partial / "upper" / "root" / ".ssh"
    for place in (keys.parent, keys):
        place.mkdir(mode=0o700)
    record.write_file(keys / "authorized_keys", lab.ssh_key.with_suffix(".pub").read_text(), mode=0o600)
    disks.make(partial / "disk.img", size=lab.disk_bytes, content=lab.data_image)


def _start(lab: Lab, node: LabNode) -> None:
    wait_for_disk(node)
    systemd = Path("/run/systemd/system").exists()  # sd_booted(3)
    cores = cores_of(lab, node, os.sched_getaffinity(0))
    layers = snapshot.layers_of(lab, node)
    words = argv.keeper(lab, node, python=sys.executable, systemd=systemd, cores=cores, layers=layers)
    process.start_detached(words, log=node.console, env=_KEEPER_PATH)


def _start_server(lab: Lab, served: Path) -> None:
    words = argv.file_server(lab, python=sys.executable, served=served)
    log = lab.folder / "file_server.log"
    process.start_detached(words, log=log, env=_KEEPER_PATH)
    _wait(lambda: observe.listens(lab.gateway, MIRROR_PORT), what=f"the file server (see {log})")


def _connect(lab: Lab, node: LabNode) -> None:
    """Lays the node's cable; half of one, from a command that was killed, is taken away first."""
    pid = _keeper(lab, node)
    with suppress(CommandFailed):
        process.run(argv.delete_link(node.link), timeout_seconds=10)
    _run_all(argv.connect(lab, node, pid=pid, shape=record.load_shape(node)))


def _keeper(lab: Lab, node: LabNode) -> int:
    """The process id of a node's keeper, once it has a network namespace of its own."""
    ours = os.readlink("/proc/self/ns/net")
    found = 0

    def is_apart() -> bool:
        nonlocal found
        found = observe.keepers_in(lab.folder).get(node.name, 0)
        with suppress(OSError):
            return bool(found) and os.readlink(f"/proc/{found}/ns/net") != ours
        return False

    _wait(is_apart, what=f"the keeper of {node.name} (see {node.console})")
    return found


def _wait_for_sshd(lab: Lab, node: LabNode) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while not observe.answers(node.address):
        if time.monotonic() > deadline or node.name not in observe.keepers_in(lab.folder):
            raise CommandFailed(
                f"boot {node.name}",
                found="\n".join(["its sshd does not answer; it said:", *_last_words(node)]),
                fix=f"Start it from nothing: provision lab reset {node.name} --name {lab.name}",
            )
        time.sleep(0.05)


def _last_words(node: LabNode) -> list[str]:
    """What a node and its keeper complained of last, and what its network and its sshd did."""
    journal = ("journalctl", "--directory", node.upper / "var/log/journal", "--boot", "--output=cat")
    words = node.console.read_text(errors="replace").splitlines()[-10:]
    for which in (("--priority=warning",), ("--unit=ssh", "--unit=ssh.socket", "--unit=systemd-networkd")):
        said = process.run((*journal, "--no-pager", *which), timeout_seconds=30, check=False)
        words += said.stdout.splitlines()[-10:]
    return words


def try_cables(lab: Lab, name: str) -> None:
    """Proves that a node reaches its neighbours and this machine, which the firewall here may forbid."""
    pid = observe.keepers_in(lab.folder)[name]
    for words in argv.try_cables(lab, pid=pid, python=sys.executable):
        tried = process.run(words, timeout_seconds=10, check=False)
        if tried.returncode != 0:
            raise CommandFailed(
                f"reach {words[-2]}:{words[-1]} from {name}",
                found=tried.stderr.strip().splitlines()[-1],
                fix="Let this machine's firewall accept what comes from and crosses the bridge "
                f"{lab.bridge} (nft list ruleset; sysctl net.bridge.bridge-nf-call-iptables).",
            )


def host_keys(layers: Iterable[Path]) -> list[Path]:
    """A node's public host keys through its layers, the youngest first: where the kernel would find each.

    What a layer deletes of those below is a device there, and a folder that it made anew is marked as opaque.
    Source: docs.kernel.org/filesystems/overlayfs.html. A node's link would lead to a file of this machine.
    """
    found: dict[str, Path] = {}
    for layer in layers:
        folder = layer.resolve() / "etc" / "ssh"
        for key in folder.glob("ssh_host_*_key.pub"):
            found.setdefault(key.name, key)
        if folder.exists() and "trusted.overlay.opaque" in os.listxattr(folder):
            break
    return [key for _, key in sorted(found.items()) if key.is_file() and key.resolve() == key]


def describe(lab: Lab) -> None:
    """Writes the host keys, as they lie on the nodes' own disks, and the inventory."""
    lines = [
        f"{node.address} {public}\n"
        for node in lab.nodes
        for key in host_keys([node.upper, *snapshot.layers_of(lab, node)])
        if (public := _public_key(key))
    ]
    record.write_file(lab.known_hosts, "".join(lines))
    written_site.write(lab)


def _public_key(path: Path) -> str:
    """Of a file that a node wrote; empty where it is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return public_key(file.read(_KEY_BYTES).decode(errors="replace"))


def delete_node(node: LabNode) -> None:
    """Deletes the files of a node that is off; without its folder a node counts as not made."""
    if node.folder.exists():
        doomed = node.folder.with_name(f"{node.name}.deleted")
        shutil.rmtree(doomed, ignore_errors=True)
        node.folder.rename(doomed)
        shutil.rmtree(doomed)


def forget_trust(lab: Lab) -> None:
    """Removes the key and the ledger of host keys that site.yml keeps: the lab vouches for the new ones.

    With what machines made from images join stays: it is for machines to come.
    """
    secrets = lab.folder / "secrets"
    for path in secrets.glob("*"):
        if not path.name.startswith(("join_", "controller_key")):
            path.unlink()
    with suppress(OSError):  # there is none, or it is not empty
        secrets.rmdir()


def reshape(node: LabNode, *, pid: int, wanted: shape.Shape) -> None:
    """Replaces the limits of a connected cable; a direction without one loses what it had."""
    for words in shape.unlimit(node, pid=pid):
        process.run(words, timeout_seconds=10, check=False)
    _run_all(shape.limit(node, pid=pid, shape=wanted))


def _detach(folder: Path, device: str) -> None:
    """Frees a loop device, unless it went with its last user and is another lab's by now."""
    if device in observe.loops_in(folder):
        with suppress(CommandFailed):
            process.run(("losetup", "--detach", device), timeout_seconds=10)
    _wait(lambda: device not in observe.loops_in(folder), what=f"{device} to be released")


def delete_link(link: str) -> None:
    """Removes this machine's end of a cable, and the other with it; it may be gone already."""
    if Path(f"/sys/class/net/{link}").exists():
        with suppress(CommandFailed):  # a cable goes with the node at its other end
            process.run(argv.delete_link(link), timeout_seconds=10)


def _wait_for_release(image: Path) -> None:
    _wait(lambda: not observe.is_attached(image), what=f"{image} to be released")


def _delete_half(half: Path) -> None:
    shutil.rmtree(half)
    snapshot.remove_if_empty(half.parent)


def _delete_files(folder: Path) -> None:
    """Deletes what is the lab's alone; beneath a mount would be what is frozen."""
    if left := observe.mounts_in(folder, Path("/proc/self/mounts").read_text()):
        raise CommandFailed(f"delete {folder}", found=f"{left[0]} is mounted", fix="Run the command again.")
    shutil.rmtree(folder)
    for parent in (folder.parent, folder.parent.parent):
        with suppress(OSError):  # another lab lives there
            parent.rmdir()
