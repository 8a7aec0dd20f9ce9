"""What a node's disks are and hold, and how each can be used as it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What data_disk_device says of a site without a data disk of its own.
NO_DISK = "none"
_ADOPTABLE = ("ext4", "xfs")
_OF_SYSTEM = ("/boot", "/etc", "/home", "/root", "/usr", "/var")
_CONTAINERS = {
    "LVM2_member": "a member of LVM",
    "linux_raid_member": "a member of a RAID",
    "isw_raid_member": "a member of a RAID",
    "ddf_raid_member": "a member of a RAID",
    "crypto_LUKS": "encrypted (LUKS)",
    "zfs_member": "a member of ZFS",
}
NO_DISK_LINE = f"data_disk_device: {NO_DISK}"


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
    damage: str
    unreadable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The folder that the data disk is mounted at: the devices there, the uppermost mount, what it holds.

    `is_noexec` is of the file system that it lies on, mounted there or not.
    """

    numbers: Sequence[str]
    root: str
    source: str
    file_system: str
    is_read_only: bool
    is_noexec: bool
    is_folder: bool
    is_there: bool
    entries: int
    names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the inventory asks for.

    `device` is a real path, "" or NO_DISK; `adopt` a real path, UUID=, LABEL= or either without that, or "";
    `label` marks a file system as ours; `programs` is the folder that jobs run programs of.
    """

    device: str
    serial: str
    label: str
    mount_path: str
    adopt: str = ""
    programs: str = ""


def unfit(disk: Disk, disks: Sequence[Disk], wanted: Wanted, *, is_mounted: bool) -> tuple[str, str] | None:
    """What speaks against mounting it as it is, and how to go on."""
    inside = [other for other in disks if other.path.rpartition("/")[2] in disk.partitions]
    other_disk = "Name another one in data_disk_adopt."
    elsewhere = [path for path in disk.mounted_at if path != wanted.mount_path]
    container = [_CONTAINERS[name] for name in disk.signatures if name in _CONTAINERS]
    if disk.unreadable:
        return f"it cannot be read ({disk.unreadable})", "See what the kernel says of it: dmesg"
    if disk.partitions:
        ways = adoptions(inside, wanted) or [other_disk]
        return f"it has the partitions {', '.join(disk.partitions)}", " ".join(ways)
    if container or disk.holders:
        held = " and ".join([*container, *([f"held by {', '.join(disk.holders)}"] if disk.holders else [])])
        return f"it is {held}", mount_yourself(wanted)
    if disk.is_swap:
        return "it is swap in use", other_disk
    if disk.file_system not in _ADOPTABLE or not disk.uuid:
        kind = disk.file_system or " and ".join(disk.signatures) or "no file system that is known"
        return f"it holds {kind}, and what is adopted is {' or '.join(_ADOPTABLE)}", mount_yourself(wanted)
    if list(disk.signatures) != [disk.file_system]:
        known = " and ".join(_spoken(name) for name in disk.signatures)
        return f"it has several signatures, {known}: which of them counts, you know", mount_yourself(wanted)
    if disk.is_read_only:
        return "the device is write protected", f"See why: blockdev --report {disk.path}"
    if "/" in disk.mounted_at or (not is_mounted and any(path.startswith(_OF_SYSTEM) for path in elsewhere)):
        return f"the system itself lives on it ({elsewhere[0]})", f"{other_disk} Without one: {NO_DISK_LINE}"
    if elsewhere and not is_mounted:
        place = elsewhere[0]
        return (
            f"it is mounted at {place}",
            f"To use it there: cluster_data_path: {place} and {NO_DISK_LINE}. To have it at "
            f"{wanted.mount_path}: umount {place}, and take its line out of /etc/fstab",
        )
    if disk.damage and not is_mounted:
        return (
            f"its file system is damaged: {disk.damage}",
            f"See what is wrong, which writes nothing: e2fsck -n -f {disk.path}. Mend it, with a copy where "
            f"it matters: e2fsck -f {disk.path}. Then run site.yml again",
        )
    return None


def mount_yourself(wanted: Wanted) -> str:
    return (
        f"To keep what is in it: mount that at {wanted.mount_path} yourself, now and in /etc/fstab, and set "
        f"{NO_DISK_LINE}"
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


def all_of(disks: Sequence[Disk]) -> str:
    seen = [f"{disk.path} ({gib(disk)}) holds {what_it_holds(disk) or 'nothing'}" for disk in disks]
    return "; ".join(seen) or "the node has no disks"


def is_our_entry(fields: Sequence[str]) -> bool:
    """Whether role data_disk, or a first boot, wrote it, for whichever disk was there then."""
    return fields[2] in _ADOPTABLE and fields[3].startswith("noatime,nofail,x-systemd.device-timeout=")


def runs_programs(wanted: Wanted) -> bool:
    return f"{wanted.programs}/".startswith(f"{wanted.mount_path.rstrip('/')}/")


def hindrances(options: str, wanted: Wanted) -> set[str]:
    """Options of a line of /etc/fstab by which it mounts nothing that can be worked in (mount(8))."""
    each = options.split(",")
    last = next((one for one in reversed(each) if one in ("noexec", "user", "users", "exec", "defaults")), "")
    of_programs = {last} & {"noexec", "user", "users"} if runs_programs(wanted) else set()
    return {*each} & {"ro", "noauto"} | of_programs


def adoptions(disks: Sequence[Disk], wanted: Wanted) -> list[str]:
    """How each of these that could be adopted is."""
    fit = [
        disk
        for disk in disks
        if not unfit(disk, disks, wanted, is_mounted=wanted.mount_path in disk.mounted_at)
    ]
    return [
        f"To keep all that {disk.path} holds ({described(disk)}) and use it as the data disk as it is: "
        f"data_disk_adopt: {disk.path} (or UUID={disk.uuid}{f', LABEL={disk.label}' if disk.label else ''})."
        for disk in fit
    ]


def described(disk: Disk) -> str:
    label = f"label {disk.label}" if disk.label else "no label"
    kind = disk.file_system or " and ".join(disk.signatures)
    where = f", mounted at {', '.join(disk.mounted_at)}" if disk.mounted_at else ""
    return f"{kind}, {label}, UUID {disk.uuid}{where}" if disk.file_system and disk.uuid else f"{kind}{where}"


def gib(disk: Disk) -> str:
    return f"{disk.size / 2**30:.1f} GiB"
