"""Which disk of a node becomes the data disk, and whether it may be formatted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from provision.errors import ProvisionError

Action = Literal["keep", "mount", "format"]
_LABEL_BYTES = 16  # s_volume_name, docs.kernel.org/filesystems/ext4/super.html
_WIPE = "If nothing on it is needed, clear it yourself: wipefs --all {path}; blkdiscard -z {path}"
_ATTACH = "Attach a blank disk, or clear one that nobody needs: wipefs --all DISK; blkdiscard -z DISK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A block device as module `block_devices` reports it."""

    path: str
    number: str
    size: int
    serial: str
    is_partition: bool
    partitions: Sequence[str]
    holders: Sequence[str]
    is_swap: bool
    is_read_only: bool
    mounted_at: Sequence[str]
    signatures: Sequence[str]
    file_system: str
    label: str
    uuid: str
    ends_are_zero: bool
    unreadable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the inventory asks for; `device` is a real path or "", `label` marks a file system as ours."""

    device: str
    serial: str
    label: str
    mount_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """The disk, what to do with it and why; `uuid` is "" until it is formatted."""

    action: Action
    path: str
    uuid: str
    reason: str


def plan_data_disk(
    reported: Sequence[Mapping[str, Any]], wanted: Wanted, *, mounted: Sequence[str], entries: int
) -> DiskPlan:
    """Chooses the disk by explicit path, else by serial, else ours by its label, else the only blank one.

    Args:
        reported: the devices of the node.
        mounted: device numbers that are mounted at `wanted.mount_path`.
        entries: how many names an unmounted `wanted.mount_path` holds.

    Raises:
        ProvisionError: no disk, several, or one that holds something; `found` says what each holds.
    """
    _refuse_long_label(wanted.label)
    disks = [Disk(**device) for device in reported]
    disk = _chosen(disks, wanted)
    if is_ours(disk, wanted):
        _refuse_copies(disk, disks)
        return _plan_for_ours(disk, wanted, mounted, entries)
    if (contents := what_it_holds(disk)) != "":
        raise ProvisionError(
            f"use {disk.path} as the data disk",
            found=f"it holds {contents}; nothing was written",
            fix=_WIPE.format(path=disk.path),
        )
    _refuse_used_folder(wanted, mounted, entries)
    reason = f"{disk.path} ({_gib(disk)}) is blank: no signature, no partition, zeros at both ends"
    return DiskPlan(action="format", path=disk.path, uuid="", reason=reason)


def _refuse_long_label(label: str) -> None:
    """mkfs.ext4 cuts a longer one off, and the next run would not know its own disk again."""
    if not 0 < len(label.encode()) <= _LABEL_BYTES:
        raise ProvisionError(
            f"mark the data disk with the label '{label}'",
            found=f"it has {len(label.encode())} bytes, ext4 takes 1 to {_LABEL_BYTES}",
            fix="Shorten data_disk_label.",
        )


def _refuse_copies(disk: Disk, disks: Sequence[Disk]) -> None:
    """/etc/fstab names the disk by its UUID: with two of them a boot mounts the one that it sees first."""
    copies = [other.path for other in disks if other.uuid == disk.uuid and other.path != disk.path]
    if copies:
        raise ProvisionError(
            f"mount {disk.path} by its UUID",
            found=f"{', '.join(copies)} has the same one, {disk.uuid}: a copy of it; nothing was written",
            fix=f"Detach the copy, or give it a UUID of its own: tune2fs -U random {copies[0]}",
        )


def is_ours(disk: Disk, wanted: Wanted) -> bool:
    """Whether an earlier run formatted it: its one signature is an ext4 with our label."""
    return disk.file_system == "ext4" and disk.label == wanted.label and list(disk.signatures) == ["ext4"]


def what_it_holds(disk: Disk) -> str:
    """Everything that speaks against formatting, as a phrase; "" for a blank disk that nothing uses."""
    facts = [
        (bool(disk.unreadable), f"something that cannot be read ({disk.unreadable})"),
        (bool(disk.mounted_at), f"a file system mounted at {', '.join(disk.mounted_at)}"),
        (disk.is_swap, "swap in use"),
        (bool(disk.holders), f"a member of {', '.join(disk.holders)}"),
        (bool(disk.partitions), f"the partitions {', '.join(disk.partitions)}"),
        (bool(disk.signatures), f"the signature {', '.join(_spoken(name) for name in disk.signatures)}"),
        (disk.is_read_only, "a write protection"),
    ]
    found = [text for holds, text in facts if holds]
    if not found and not disk.ends_are_zero:
        found = ["data without a known signature in its first or last MiB"]
    return " and ".join(found)


def _spoken(signature: str) -> str:
    names = {
        "LVM2_member": "LVM2_member (LVM)",
        "dos": "dos (partition table)",
        "gpt": "gpt (partition table)",
    }
    return names.get(signature, signature)


def _chosen(disks: Sequence[Disk], wanted: Wanted) -> Disk:
    if wanted.device:
        return _only([disk for disk in disks if disk.path == wanted.device], disks, f"device {wanted.device}")
    if wanted.serial:
        return _only(
            [disk for disk in disks if disk.serial == wanted.serial], disks, f"serial {wanted.serial}"
        )
    ours = [disk for disk in disks if is_ours(disk, wanted)]
    whole = [disk for disk in disks if not disk.is_partition and what_it_holds(disk) == ""]
    return _only(ours or whole, disks, f"label {wanted.label}" if ours else "the only blank disk")


def _only(matching: Sequence[Disk], disks: Sequence[Disk], asked: str) -> Disk:
    if len(matching) == 1:
        return matching[0]
    seen = "; ".join(f"{disk.path} ({_gib(disk)}) holds {what_it_holds(disk) or 'nothing'}" for disk in disks)
    raise ProvisionError(
        f"find the data disk by {asked}",
        found=f"{len(matching)} such disks; {seen or 'the node has no disks'}; nothing was written",
        fix="Name one in data_disk_device or data_disk_serial." if matching else _ATTACH,
    )


def _plan_for_ours(disk: Disk, wanted: Wanted, mounted: Sequence[str], entries: int) -> DiskPlan:
    elsewhere = [path for path in disk.mounted_at if path != wanted.mount_path]
    if disk.number in mounted and not elsewhere:
        return DiskPlan(action="keep", path=disk.path, uuid=disk.uuid, reason=f"{disk.path} is mounted")
    if elsewhere:
        raise ProvisionError(
            f"mount {disk.path} at {wanted.mount_path}",
            found=f"it is mounted at {', '.join(elsewhere)}",
            fix=f"Unmount it there: umount {elsewhere[0]}",
        )
    _refuse_used_folder(wanted, mounted, entries)
    reason = f"{disk.path} has our label {wanted.label} and is not mounted"
    return DiskPlan(action="mount", path=disk.path, uuid=disk.uuid, reason=reason)


def _refuse_used_folder(wanted: Wanted, mounted: Sequence[str], entries: int) -> None:
    if mounted:
        found = f"another device ({', '.join(mounted)}) is mounted there"
    elif entries:
        found = f"the folder holds {entries} entries, which the mount would hide"
    else:
        return
    raise ProvisionError(
        f"mount the data disk at {wanted.mount_path}",
        found=found,
        fix=f"Move it away, or set cluster_data_path to another folder than {wanted.mount_path}.",
    )


def _gib(disk: Disk) -> str:
    return f"{disk.size / 2**30:.1f} GiB"
