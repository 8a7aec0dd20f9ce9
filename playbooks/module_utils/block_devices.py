"""What lies on each disk of a node, from the disk itself, for module observe. Writes nothing.

Looks at the block nodes that exist in /dev, since a container's /sys shows the disks of its host. Signatures
are read with blkid and wipefs, which know different ones; both ends are compared with zeros.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import struct

from ansible.module_utils.basic import AnsibleModule

NOT_DISKS = re.compile(r"^(loop|ram|zram|sr|fd|nbd|dm-)")
BLKGETSIZE64 = 0x80081272  # linux/fs.h
END_BYTES = 1 << 20
# docs.kernel.org/filesystems/ext4/super.html: s_magic; s_state (clean, errors); s_feature_incompat (replay)
EXT4_AT, EXT4_MAGIC, EXT4_CLEAN, EXT4_ERRORS, EXT4_REPLAY = 1024, 0xEF53, 1, 2, 4
MOST_NAMES = 20


def block_nodes() -> list[str]:
    """Names in /dev that are block devices of their own."""
    with os.scandir("/dev") as entries:
        found = [entry.name for entry in entries if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode)]
    return sorted(name for name in found if not NOT_DISKS.match(name))


def numbers(path: str) -> str:
    device = os.stat(path).st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def look_inside(path: str) -> dict[str, object]:
    """Size in bytes, whether the first and the last MiB hold anything, and what speaks against mounting."""
    try:
        with open(path, "rb") as device:
            size = struct.unpack("Q", fcntl.ioctl(device, BLKGETSIZE64, b"\0" * 8))[0]
            first = device.read(END_BYTES)
            device.seek(max(0, size - END_BYTES))
            last = device.read(END_BYTES)
    except OSError as e:
        return {"size": 0, "ends_are_zero": False, "damage": "", "unreadable": str(e)}
    ends_are_zero = not any(first) and not any(last)
    return {"size": size, "ends_are_zero": ends_are_zero, "damage": ext4_damage(first), "unreadable": ""}


def ext4_damage(start: bytes) -> str:
    """What an ext4 says of itself that only e2fsck mends. A journal that a mount replays is no damage."""
    block = start[EXT4_AT : EXT4_AT + 1024]
    if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != EXT4_MAGIC:
        return ""
    state, features = struct.unpack_from("<H", block, 0x3A)[0], struct.unpack_from("<I", block, 0x60)[0]
    if state & EXT4_ERRORS:
        return "it is marked as having errors"
    return "" if state & EXT4_CLEAN or features & EXT4_REPLAY else "it was not unmounted and has no journal"


def signatures(module: AnsibleModule, path: str) -> list[str]:
    """Every signature that wipefs finds; blkid's low-level probe adds those that wipefs leaves out."""
    found = set()
    rc, out, _ = module.run_command(["wipefs", "--no-act", "--json", path])
    if rc == 0 and out.strip():
        found |= {entry["type"] for entry in json.loads(out)["signatures"]}
    probed = probe(module, path)
    found |= {probed[name] for name in ("TYPE", "PTTYPE") if name in probed}
    return sorted(found)


def probe(module: AnsibleModule, path: str) -> dict[str, str]:
    """rc 2 is "nothing found", rc 8 "several signatures that do not agree" (blkid(8))."""
    rc, out, _ = module.run_command(["blkid", "--probe", "--output", "export", path])
    if rc == 8:
        return {"TYPE": "ambivalent"}
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def mounts() -> list[dict[str, object]]:
    """Each mount (proc_pid_mountinfo(5)); `root` is what of the file system is mounted, all of it is /."""
    found: list[dict[str, object]] = []
    for line in text_of("/proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, number, root, place, options, *_ = fields.split(" ")
        kind, source, of_all = [*rest.split(" "), "", ""][:3]
        found.append(
            {
                "number": number,
                "root": plain(root),
                "place": plain(place),
                "is_read_only": "ro" in options.split(",") or "ro" in of_all.split(","),
                "file_system": kind,
                "source": plain(source),
            }
        )
    return found


def plain(text: str) -> str:
    """Blanks and the like stand as octal numbers there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def describe(module: AnsibleModule, name: str, mounted: list[dict[str, object]]) -> dict[str, object]:
    path = f"/dev/{name}"
    number = numbers(path)
    sys_folder = f"/sys/dev/block/{number}"
    swaps = [line.split()[0] for line in text_of("/proc/swaps").splitlines()[1:]]
    probed = probe(module, path)
    return {
        "path": path,
        "number": number,
        "serial": text_of(f"{sys_folder}/device/serial") or text_of(f"{sys_folder}/serial"),
        "is_partition": os.path.exists(f"{sys_folder}/partition"),
        "partitions": [
            child for child in names_in(sys_folder) if os.path.exists(f"{sys_folder}/{child}/partition")
        ],
        "holders": names_in(f"{sys_folder}/holders"),
        "is_swap": path in swaps,
        "is_read_only": text_of(f"{sys_folder}/ro") == "1",
        "mounted_at": [mount["place"] for mount in mounted if mount["number"] == number],
        "signatures": signatures(module, path),
        "file_system": probed.get("TYPE", ""),
        "label": probed.get("LABEL", ""),
        "uuid": probed.get("UUID", ""),
        **look_inside(path),
    }


def fstab() -> list[list[str]]:
    lines = [line.partition("#")[0].split() for line in text_of("/etc/fstab").splitlines()]
    return [fields for fields in lines if len(fields) >= 4]


def reported(module: AnsibleModule, mount_path: str, device: str = "") -> dict[str, object]:
    """What observe returns as `disks`: each disk and partition, and what uses the folder `mount_path`.

    `asked` is the real path of `device`, empty where there is none; `mount` is the folder, see `folder`;
    `fstab` has the fields of each entry.
    """
    mounted = mounts()
    return {
        "devices": [describe(module, name, mounted) for name in block_nodes()],
        "asked": os.path.realpath(device) if device and os.path.exists(device) else "",
        "mount": folder(mount_path, mounted),
        "fstab": fstab(),
    }


def is_noexec(path: str) -> bool:
    """Whether no program runs from where the folder lies, or would lie."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)


def folder(path: str, mounted: list[dict[str, object]]) -> dict[str, object]:
    """Numbers of the devices that are mounted there, the uppermost mount, and what the folder holds."""
    here = [mount for mount in mounted if mount["place"] in (path, os.path.realpath(path))]
    top = here[-1] if here else {"root": "", "source": "", "file_system": "", "is_read_only": False}
    names = names_in(path)
    return {
        "numbers": [mount["number"] for mount in here],
        **{name: top[name] for name in ("root", "source", "file_system", "is_read_only")},
        "is_noexec": is_noexec(path),
        "is_folder": os.path.isdir(path),
        "is_there": os.path.lexists(path),
        "entries": 0 if here else len(names),
        "names": ["".join(one if one.isprintable() else "?" for one in name) for name in names[:MOST_NAMES]],
    }
