"""Which disk of a node becomes the data disk, and whether it may be formatted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from provision.errors import ProvisionError

Action = Literal["keep", "mount", "format"]
_LABEL_BYTES = 16  # s_volume_name, docs.kernel.org/filesystems/ext4/super.html
# What one disk holds alone: anything else may be part of something larger, or encrypted (without a signature,
# or as an empty partition table), so nobody is told to blank it.
_PLAIN = {"ext2", "ext3", "ext4", "xfs", "vfat", "exfat", "ntfs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A block device as module `observe` reports it."""

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
            fix=_way_on(disk, disks, wanted),
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
        named = [disk for disk in disks if disk.path == wanted.device]
        return _only(named, disks, f"device {wanted.device}", wanted)
    if wanted.serial:
        named = [disk for disk in disks if disk.serial == wanted.serial]
        return _only(named, disks, f"serial {wanted.serial}", wanted)
    ours = [disk for disk in disks if is_ours(disk, wanted)]
    whole = [disk for disk in disks if not disk.is_partition and what_it_holds(disk) == ""]
    return _only(ours or whole, disks, f"label {wanted.label}" if ours else "the only blank disk", wanted)


def _only(matching: Sequence[Disk], disks: Sequence[Disk], asked: str, wanted: Wanted) -> Disk:
    if len(matching) == 1:
        return matching[0]
    seen = "; ".join(f"{disk.path} ({_gib(disk)}) holds {what_it_holds(disk) or 'nothing'}" for disk in disks)
    raise ProvisionError(
        f"find the data disk by {asked}",
        found=f"{len(matching)} such disks; {seen or 'the node has no disks'}; nothing was written",
        fix="Name one in data_disk_device or data_disk_serial." if matching else _way_to_any(disks, wanted),
    )


def refuse_entry_of_others(fstab: Sequence[Sequence[str]], plan: DiskPlan, wanted: Wanted) -> str:
    """The line of /etc/fstab that ours takes the place of: somebody else's, for this disk; "" for none.

    Raises:
        ProvisionError: a line of somebody else gives the folder to another device.
    """
    theirs = [fields for fields in fstab if fields[1] == wanted.mount_path and not _is_our_entry(fields)]
    of_this_disk = (plan.path, f"UUID={plan.uuid}", f"LABEL={wanted.label}")
    for line in (" ".join(fields) for fields in theirs if fields[0] not in of_this_disk):
        raise ProvisionError(
            f"mount {plan.path} at {wanted.mount_path}",
            found=f"/etc/fstab gives that folder to another device: {line}; nothing was written",
            fix="Where that line is out of date, put a # before it; else name its device in "
            f"data_disk_device, or set cluster_data_path to another folder than {wanted.mount_path}.",
        )
    return "; ".join(" ".join(fields) for fields in theirs)


def _is_our_entry(fields: Sequence[str]) -> bool:
    """Whether role data_disk, or a first boot, wrote it, for whichever disk was there then."""
    return fields[2] == "ext4" and fields[3].startswith("noatime,nofail,x-systemd.device-timeout=")


def _way_on(disk: Disk, disks: Sequence[Disk], wanted: Wanted) -> str:
    """What keeps what a disk holds. To blank it comes last, and only where it is unused and whole."""
    inside = [other for other in disks if other.path.rpartition("/")[2] in disk.partitions]
    if ways := [_adoption(other, wanted) for other in (disk, *inside) if _is_adoptable(other, wanted)]:
        return " ".join([*ways, *_blanking(disk)])
    if disk.mounted_at:
        return f"It is in use at {disk.mounted_at[0]}: name another disk in data_disk_device."
    names = [f"{other.path} is {_described(other)}." for other in (disk, *inside) if other.signatures]
    stay = "Only an ext4 that is alone on its disk or partition can be taken over: name another disk"
    return " ".join([*names, f"{stay} in data_disk_device.", *_blanking(disk)])


def _way_to_any(disks: Sequence[Disk], wanted: Wanted) -> str:
    unused = [disk for disk in disks if list(disk.mounted_at) in ([], [wanted.mount_path])]
    ways = [_adoption(disk, wanted) for disk in unused if _is_adoptable(disk, wanted)]
    return " ".join(["Attach a blank disk.", *ways])


def _adoption(disk: Disk, wanted: Wanted) -> str:
    unnamed = disk.is_partition and wanted.device != disk.path
    device = f"set data_disk_device to {disk.path}, " if unnamed else ""
    unmount = "".join(f"umount {path}; " for path in disk.mounted_at if path != wanted.mount_path)
    return (
        f"To keep what {disk.path} holds ({_described(disk)}) and use it as the data disk, {device}"
        f"label it on the node and run site.yml again: {unmount}e2label {disk.path} {wanted.label}"
    )


def _is_adoptable(disk: Disk, wanted: Wanted) -> bool:
    """Whether our label is all that an ext4 lacks; what the running system itself lives on is left alone."""
    alone = disk.file_system == "ext4" and list(disk.signatures) == ["ext4"] and disk.label != wanted.label
    in_use = disk.is_swap or disk.is_read_only or disk.holders or disk.partitions or disk.unreadable
    system = ("/boot", "/etc", "/home", "/root", "/usr", "/var")
    of_system = any(path == "/" or path.startswith(system) for path in disk.mounted_at)
    return alone and not in_use and not of_system


def _blanking(disk: Disk) -> list[str]:
    in_use = disk.mounted_at or disk.holders or disk.partitions or disk.is_swap or disk.is_read_only
    if in_use or disk.unreadable or not disk.signatures or not _PLAIN.issuperset(disk.signatures):
        return []
    return [f"(Only if nobody needs what is on it: wipefs --all {disk.path}; blkdiscard -z {disk.path})"]


def _described(disk: Disk) -> str:
    label = f"label {disk.label}" if disk.label else "no label"
    kind = disk.file_system or " and ".join(disk.signatures)
    where = f", mounted at {', '.join(disk.mounted_at)}" if disk.mounted_at else ""
    return f"{kind}, {label}, UUID {disk.uuid}{where}" if disk.file_system and disk.uuid else f"{kind}{where}"


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
