"""Which disk of a node becomes the data disk, as it is or formatted; nothing that it holds is ever lost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from provision.errors import ProvisionError
from provision.roles.disks import (
    NO_DISK,
    NO_DISK_LINE,
    Disk,
    Folder,
    Wanted,
    adoptions,
    all_of,
    described,
    gib,
    hindrances,
    is_our_entry,
    is_ours,
    mount_yourself,
    runs_programs,
    unfit,
    what_it_holds,
)

Action = Literal["keep", "mount", "format", "leave"]
_LABEL_BYTES = 16  # s_volume_name, docs.kernel.org/filesystems/ext4/super.html
# What lies on other machines, which may give the same to several nodes.
_SHARED_KINDS = re.compile(
    r"nfs4?|cifs|smb3|9p|virtiofs|ceph|lustre|beegfs|gpfs|afs"
    r"|fuse\.(sshfs|glusterfs|ceph.*|s3fs|juicefs|gcsfuse|rclone|goofys|mfs)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """The disk, what to do with it and why; `uuid` is "" until it is formatted.

    `is_adopted`: it was somebody's, and stays as it is. `their_entry`: the line of /etc/fstab, not ours, that
    mounts it there and stays.
    """

    action: Action
    path: str
    uuid: str
    reason: str
    file_system: str = "ext4"
    label: str = ""
    is_adopted: bool = False
    their_entry: str = ""


def plan_data_disk(
    reported: Sequence[Mapping[str, Any]], wanted: Wanted, *, folder: Folder, fstab: Sequence[Sequence[str]]
) -> DiskPlan:
    """Chooses the disk to be adopted, else one by path, by serial, ours by its label, or the only blank one.

    Args:
        reported: the devices of the node.
        folder: `wanted.mount_path` as it is now.
        fstab: the fields of each entry of /etc/fstab.

    Raises:
        ProvisionError: no disk, several, or one that cannot be used as it is; `found` says what each holds.
    """
    _refuse_long_label(wanted.label)
    _refuse_no_folder(wanted, folder)
    disks = [Disk(**device) for device in reported]
    if wanted.device == NO_DISK:
        return _plan_without_a_disk(wanted, folder, fstab)
    if wanted.adopt:
        return _plan_to_adopt(_adopted(disks, wanted), disks, wanted, folder, fstab)
    disk = _chosen(disks, wanted, folder)
    if is_ours(disk, wanted):
        _refuse_copies(disk, disks)
        return _plan_for_ours(disk, disks, wanted, folder)
    if (contents := what_it_holds(disk)) != "":
        raise ProvisionError(
            f"use {disk.path} as the data disk",
            found=f"it holds {contents}; nothing was written",
            fix=_way_on(disk, disks, wanted),
        )
    _refuse_used_folder(wanted, disks, folder)
    reason = f"{disk.path} ({gib(disk)}) is blank: no signature, no partition, zeros at both ends"
    return DiskPlan(action="format", path=disk.path, uuid="", reason=reason)


def _refuse_long_label(label: str) -> None:
    """mkfs.ext4 cuts a longer one off, and the next run would not know its own disk again."""
    if not 0 < len(label.encode()) <= _LABEL_BYTES:
        raise ProvisionError(
            f"mark the data disk with the label '{label}'",
            found=f"it has {len(label.encode())} bytes, ext4 takes 1 to {_LABEL_BYTES}",
            fix="Shorten data_disk_label.",
        )


def _refuse_no_folder(wanted: Wanted, folder: Folder) -> None:
    if folder.is_there and not folder.is_folder:
        raise ProvisionError(
            f"keep data in {wanted.mount_path}",
            found="it is no folder, and leads to none; nothing was written",
            fix="Move it away, or set cluster_data_path to a folder.",
        )


def _refuse_hindered(wanted: Wanted, folder: Folder) -> None:
    """What is there is read only, or no program runs from it."""
    if folder.numbers and folder.is_read_only:
        raise ProvisionError(
            f"keep data in {wanted.mount_path}",
            found=f"{folder.source} is mounted there read only; nothing was written",
            fix="See why (dmesg; the kernel does that after errors; the line of /etc/fstab), then "
            f"mount -o remount,rw {wanted.mount_path}",
        )
    if folder.is_noexec and runs_programs(wanted):
        source, at = folder.source or "its file system", wanted.mount_path if folder.source else "MOUNTPOINT"
        raise ProvisionError(
            f"keep the environment of jobs in {wanted.programs}",
            found=f"no program runs from {wanted.mount_path}: {source} is mounted with noexec; "
            "nothing was written",
            fix="Take noexec (and user, users, which bring it) out of its line in /etc/fstab, then mount -o "
            f"remount,exec {at}; or have the environment elsewhere: miniconda_prefix: /opt/miniconda3",
        )


def _plan_without_a_disk(wanted: Wanted, folder: Folder, fstab: Sequence[Sequence[str]]) -> DiskPlan:
    """The folder as it is: mounted by somebody, or on the disk that it lies on."""
    _refuse_hindered(wanted, folder)
    if folder.numbers:
        said = f"{folder.source} ({folder.file_system}) is mounted at {wanted.mount_path}"
        return DiskPlan(action="leave", path="", uuid="", reason=said)
    waiting = [fields for fields in fstab if fields[1] == wanted.mount_path]
    for line in (" ".join(fields) for fields in waiting):
        raise ProvisionError(
            f"keep data in {wanted.mount_path}",
            found=f"/etc/fstab mounts something there, which is not mounted now: {line}; nothing was written",
            fix=f"Mount it: mount {wanted.mount_path}; where that line is out of date, put a # before it.",
        )
    return DiskPlan(action="leave", path="", uuid="", reason=f"{wanted.mount_path} lies on the system's disk")


def shared_with(mounts: Mapping[str, Mapping[str, Any]], node: str) -> list[str]:
    """The other nodes whose folder lies in the same place of another machine."""
    own = mounts[node]
    if not _SHARED_KINDS.fullmatch(own["file_system"]):
        return []
    same = ("source", "root", "file_system")
    return [
        name for name, one in mounts.items() if name != node and all(one[key] == own[key] for key in same)
    ]


def is_of_another_machine(file_system: str) -> bool:
    return _SHARED_KINDS.fullmatch(file_system) is not None


def refusal_of_sharing(node: str, others: Sequence[str], mount: Mapping[str, Any], mount_path: str) -> str:
    """Why nodes cannot have one folder; "" where none has it, too."""
    if not others:
        return ""
    return str(
        ProvisionError(
            f"keep the environment and the jobs of {node} in {mount_path}",
            found=f"{', '.join(others)} keep theirs in the same place, {mount['source']} "
            f"({mount['file_system']}), where one node would build over another; nothing was written",
            fix="Leave that as it is, with your data in it, and set cluster_data_path to a folder of each "
            "node's own disk, /var/lib/data for example.",
        )
    )


def _adopted(disks: Sequence[Disk], wanted: Wanted) -> Disk:
    """The one that the inventory names by its path, its UUID or its label."""
    kind, is_said, value = wanted.adopt.partition("=")
    if not is_said or kind not in ("UUID", "LABEL"):
        kind, value = "", wanted.adopt
    matching = [
        disk
        for disk in disks
        if disk.path == wanted.adopt
        or (kind in ("", "UUID") and disk.uuid == value != "")
        or (kind in ("", "LABEL") and disk.label == value != "")
    ]
    if len(matching) == 1:
        return matching[0]
    if matching and len({disk.uuid for disk in matching}) == 1:
        _refuse_copies(matching[0], matching)
    if wanted.adopt.startswith("/dev/dm-"):
        raise ProvisionError(
            f"adopt {wanted.adopt}",
            found="it is a volume of LVM, LUKS or the like; nothing was written",
            fix=mount_yourself(wanted),
        )
    asked = f"find the disk to adopt, {wanted.adopt}"
    if matching:
        named = "; ".join(f"{disk.path} is {described(disk)}" for disk in matching)
        way = f"Name the one that is meant: data_disk_adopt: UUID={matching[0].uuid}"
        raise ProvisionError(
            asked, found=f"{len(matching)} have that name: {named}; nothing was written", fix=way
        )
    ways = adoptions(disks, wanted)
    raise ProvisionError(
        asked,
        found=f"there is none; {all_of(disks)}; nothing was written",
        fix=" ".join(["Attach it, or correct data_disk_adopt.", *ways]),
    )


def _plan_to_adopt(
    disk: Disk, disks: Sequence[Disk], wanted: Wanted, folder: Folder, fstab: Sequence[Sequence[str]]
) -> DiskPlan:
    """Mounted as it is, with the line of /etc/fstab that mounts it, or one of ours."""
    is_mounted = disk.number in folder.numbers
    if why := unfit(disk, disks, wanted, is_mounted=is_mounted):
        found, fix = why
        raise ProvisionError(f"adopt {disk.path}", found=f"{found}; nothing was written", fix=fix)
    _refuse_copies(disk, disks)
    if is_mounted:
        _refuse_hindered(wanted, folder)
    else:
        _refuse_used_folder(wanted, disks, folder)
    if is_mounted and folder.root != "/":
        raise ProvisionError(
            f"adopt {disk.path}",
            found=f"a folder of it, {folder.root}, is mounted at {wanted.mount_path}; nothing was written",
            fix=f"To use that as it is: {NO_DISK_LINE}",
        )
    return DiskPlan(
        action="keep" if is_mounted else "mount",
        path=disk.path,
        uuid=disk.uuid,
        reason=f"{disk.path} ({described(disk)}) is adopted as it is",
        file_system=disk.file_system,
        label=disk.label,
        is_adopted=True,
        their_entry=_their_entry(disk, wanted, fstab),
    )


def _their_entry(disk: Disk, wanted: Wanted, fstab: Sequence[Sequence[str]]) -> str:
    """The line, not ours, that mounts the disk there; it stays.

    Raises:
        ProvisionError: it mounts it read only, so that no program runs from it, or not at boot.
    """
    theirs = [fields for fields in fstab if fields[1] == wanted.mount_path and not is_our_entry(fields)]
    names = (disk.path, f"UUID={disk.uuid}", f"LABEL={disk.label}", f"/dev/disk/by-uuid/{disk.uuid}")
    for fields in theirs:
        if fields[0] in names and (unfit := hindrances(fields[3], wanted)):
            raise ProvisionError(
                f"mount {disk.path} at {wanted.mount_path} at every boot",
                found=f"its line of /etc/fstab says {' and '.join(sorted(unfit))}: {' '.join(fields)}; "
                "nothing was written",
                fix="Take that out of the line, or put a # before it: site.yml writes its own then.",
            )
    return "; ".join(" ".join(fields) for fields in theirs if fields[0] in names)


def _refuse_copies(disk: Disk, disks: Sequence[Disk]) -> None:
    """/etc/fstab names the disk by its UUID: with two of them a boot mounts the one that it sees first."""
    copies = [other for other in disks if other.uuid == disk.uuid and other.path != disk.path]
    if copies:
        paths = ", ".join(copy.path for copy in copies)
        renew = "xfs_admin -U generate" if copies[0].file_system == "xfs" else "tune2fs -U random"
        raise ProvisionError(
            f"mount {disk.path} by its UUID",
            found=f"{paths} has the same one, {disk.uuid}: a copy of it; nothing was written",
            fix=f"Detach the copy, or give it a UUID of its own: {renew} {copies[0].path}",
        )


def _chosen(disks: Sequence[Disk], wanted: Wanted, folder: Folder) -> Disk:
    if wanted.device:
        named = [disk for disk in disks if disk.path == wanted.device]
        return _only(named, disks, f"device {wanted.device}", wanted, folder)
    if wanted.serial:
        named = [disk for disk in disks if disk.serial == wanted.serial]
        return _only(named, disks, f"serial {wanted.serial}", wanted, folder)
    ours = [disk for disk in disks if is_ours(disk, wanted)]
    whole = [disk for disk in disks if not disk.is_partition and what_it_holds(disk) == ""]
    return _only(
        ours or whole, disks, f"label {wanted.label}" if ours else "the only blank disk", wanted, folder
    )


def _only(
    matching: Sequence[Disk], disks: Sequence[Disk], asked: str, wanted: Wanted, folder: Folder
) -> Disk:
    if len(matching) == 1:
        return matching[0]
    raise ProvisionError(
        f"find the data disk by {asked}",
        found=f"{len(matching)} such disks; {all_of(disks)}; nothing was written",
        fix="Name one in data_disk_device or data_disk_serial."
        if matching
        else _way_to_any(disks, wanted, folder),
    )


def refuse_entry_of_others(fstab: Sequence[Sequence[str]], plan: DiskPlan, wanted: Wanted) -> str:
    """The line of /etc/fstab that ours takes the place of: somebody else's, for this disk; "" for none.

    Raises:
        ProvisionError: a line of somebody else gives the folder to another device.
    """
    if plan.action == "leave":
        return ""
    theirs = [fields for fields in fstab if fields[1] == wanted.mount_path and not is_our_entry(fields)]
    of_this_disk = (plan.path, f"UUID={plan.uuid}", f"LABEL={plan.label or wanted.label}")
    lines = [" ".join(fields) for fields in theirs if fields[0] not in of_this_disk]
    for line in (line for line in lines if line != plan.their_entry):
        raise ProvisionError(
            f"mount {plan.path} at {wanted.mount_path}",
            found=f"/etc/fstab gives that folder to another device: {line}; nothing was written",
            fix="To use that device as it is, name it in data_disk_adopt, or mount it and set "
            f"{NO_DISK_LINE}; where that line is out of date, put a # before it; or set cluster_data_path "
            f"to another folder than {wanted.mount_path}.",
        )
    return "" if plan.their_entry else "; ".join(" ".join(fields) for fields in theirs)


def _way_on(disk: Disk, disks: Sequence[Disk], wanted: Wanted) -> str:
    """What keeps what a disk holds."""
    inside = [other for other in disks if other.path.rpartition("/")[2] in disk.partitions]
    if ways := adoptions((disk, *inside), wanted):
        return " ".join(ways)
    why = unfit(disk, disks, wanted, is_mounted=wanted.mount_path in disk.mounted_at)
    names = [f"{other.path} is {described(other)}." for other in inside if other.signatures]
    return " ".join([*names, *([f"{why[1]}."] if why else []), "Or name another disk in data_disk_device."])


def _way_to_any(disks: Sequence[Disk], wanted: Wanted, folder: Folder) -> str:
    without = f"Without a data disk, with {wanted.mount_path} as it is"
    if folder.numbers:
        without += f" ({folder.source}, {folder.file_system})"
    return " ".join([*adoptions(disks, wanted), f"{without}: {NO_DISK_LINE}.", "Or attach a blank disk."])


def _plan_for_ours(disk: Disk, disks: Sequence[Disk], wanted: Wanted, folder: Folder) -> DiskPlan:
    elsewhere = [path for path in disk.mounted_at if path != wanted.mount_path]
    if disk.number in folder.numbers and not elsewhere:
        _refuse_hindered(wanted, folder)
        return DiskPlan(action="keep", path=disk.path, uuid=disk.uuid, reason=f"{disk.path} is mounted")
    if elsewhere:
        raise ProvisionError(
            f"mount {disk.path} at {wanted.mount_path}",
            found=f"it is mounted at {', '.join(elsewhere)}",
            fix=f"Unmount it there, umount {elsewhere[0]}, and take its line out of /etc/fstab, by which it "
            f"comes back at the next boot; or use it there: cluster_data_path: {elsewhere[0]}",
        )
    if why := unfit(disk, disks, wanted, is_mounted=False):
        found, fix = why
        raise ProvisionError(
            f"mount {disk.path} at {wanted.mount_path}", found=f"{found}; nothing was written", fix=fix
        )
    _refuse_used_folder(wanted, disks, folder)
    reason = f"{disk.path} has our label {wanted.label} and is not mounted"
    return DiskPlan(action="mount", path=disk.path, uuid=disk.uuid, reason=reason)


def _refuse_used_folder(wanted: Wanted, disks: Sequence[Disk], folder: Folder) -> None:
    there = [disk for disk in disks if disk.number in folder.numbers]
    if folder.numbers:
        found = f"another device ({', '.join(folder.numbers)}) is mounted there"
    elif folder.entries:
        names = ", ".join(folder.names[:5])
        found = f"the folder holds {folder.entries} entries, which the mount would hide ({names})"
    else:
        return
    ways = adoptions(there, wanted)
    raise ProvisionError(
        f"mount the data disk at {wanted.mount_path}",
        found=found,
        fix=" ".join(
            [
                *ways,
                f"To use {wanted.mount_path} as it is, without a data disk: {NO_DISK_LINE}.",
                f"Or set cluster_data_path to another folder than {wanted.mount_path}.",
            ]
        ),
    )
