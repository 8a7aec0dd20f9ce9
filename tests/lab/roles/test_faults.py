"""A fault ends in a clear error, with nothing half done, and the healthy nodes finish."""

from __future__ import annotations

import base64
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

DISK = "head -c 64M /dev/vdb | sha256sum"
HOLD_DPKG_LOCK = """\
import fcntl, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(60)
"""
# An LVM2 label (lvm2 lib/label/label.h): magic, sector, CRC of what follows, offset, type; the CRC begins so.
LVM_CRC_START = 0xF597A6CF


def lvm_label() -> bytes:
    rest = struct.pack("<I", 32) + b"LVM2 001" + b"x" * 32
    rest = rest.ljust(512 - 20, b"\0")
    checksum = zlib.crc32(rest, LVM_CRC_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return b"\0" * 512 + b"LABELONE" + struct.pack("<QI", 1, checksum) + rest


def dos_partition_table() -> bytes:
    """One Linux partition from sector 2048 on (type 0x83)."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", 2048, 4096)
    return b"\0" * 446 + entry.ljust(64, b"\0") + b"\x55\xaa"


def write_to_disk(content: bytes) -> str:
    """A command that writes these bytes to the beginning of the data disk."""
    text = base64.b64encode(content).decode()
    return f"echo {text} | base64 -d | dd of=/dev/vdb conv=notrunc,fsync status=none"


def copy_with(lab: Any, folder: Path, hosts: str) -> Path:
    """The lab's inventory with other machines."""
    copy = folder / "site"
    shutil.copytree(lab.inventory, copy, symlinks=True)
    (copy / "hosts.yml").write_text(hosts)
    return copy


FORMAT = "mkfs.ext4 -q /dev/vdb"
HELD = {
    "te2": (FORMAT, "the signature ext4"),
    "te3": (write_to_disk(lvm_label()), "the signature LVM2_member (LVM)"),
    "te4": (write_to_disk(dos_partition_table()), "the signature dos (partition table)"),
}


def test_disks_that_hold_something_are_refused_and_the_blank_one_is_mounted(
    blank_lab: Any, play: Any
) -> None:
    for node, (command, _) in HELD.items():
        blank_lab.run(node, command)
    before = {node: blank_lab.out(node, DISK) for node in HELD}

    run = play("data_disk", ok=False)

    said = " ".join(run.output.split())
    assert run.returncode != 0
    assert [node for node, counts in run.counts.items() if counts["failed"]] == list(HELD)
    for node, (_, words) in HELD.items():
        assert f"{node}: find the data disk by the only blank disk" in said
        assert f"/dev/vdb (12.0 GiB) holds {words}; nothing was written" in said
        assert blank_lab.run(node, "grep data /etc/fstab", check=False).returncode != 0
    assert {node: blank_lab.out(node, DISK) for node in HELD} == before
    assert blank_lab.out("te1", "findmnt -n -o FSTYPE /data") == "ext4"


def test_a_node_that_is_off_is_named_and_the_others_finish(blank_lab: Any, play: Any) -> None:
    blank_lab.power_off("te3")
    try:
        run = play("node_access", "host_names", "ssh_trust", ok=False)
    finally:
        blank_lab.power_on("te3")

    assert run.returncode != 0
    assert {node: counts["unreachable"] for node, counts in run.counts.items() if counts["unreachable"]} == {
        "te3": 1
    }
    assert not any(counts["failed"] for counts in run.counts.values())
    assert blank_lab.out("te2", "ssh -o BatchMode=yes te4 hostname") == "te4"
    assert blank_lab.out("te2", "getent hosts te3").split()[0] == blank_lab.address("te3")


def test_two_nodes_with_one_address_stop_the_run_before_any_node(
    blank_lab: Any, play: Any, tmp_path: Path
) -> None:
    hosts = (blank_lab.inventory / "hosts.yml").read_text()
    wrong = hosts.replace(blank_lab.address("te2"), blank_lab.address("te1"))

    run = play(ok=False, inventory=copy_with(blank_lab, tmp_path, wrong))

    assert run.returncode != 0
    assert f"te1 and te2 have one address, {blank_lab.address('te1')}" in run.output
    assert set(run.counts) == {"localhost"}


def test_a_misspelled_variable_stops_the_run_before_any_node(
    blank_lab: Any, play: Any, tmp_path: Path
) -> None:
    wrong = (blank_lab.inventory / "hosts.yml").read_text() + "  vars: {ssh_trsut_user: root}\n"

    run = play(ok=False, inventory=copy_with(blank_lab, tmp_path, wrong))

    assert run.returncode != 0
    assert "ssh_trsut_user. Did you mean ssh_trust_user?" in run.output
    assert set(run.counts) == {"localhost"}


def test_apt_waits_for_another_process_that_holds_its_lock(blank_lab: Any, play: Any) -> None:
    play("base_packages")
    blank_lab.run("te2", "apt-get -qq remove tmux")
    blank_lab.run("te2", f"systemd-run --quiet python3 -c '{HOLD_DPKG_LOCK}'")

    run = play("base_packages")

    assert run.seconds > 50
    assert run.changed()["te2"] == 1
    assert blank_lab.out("te2", "tmux -V").startswith("tmux")
