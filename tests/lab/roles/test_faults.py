"""A fault ends in a clear error, with nothing half done, and the healthy nodes finish."""

from __future__ import annotations

import base64
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

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


def write_to_disk(lab: Any, node: str, content: bytes) -> None:
    text = base64.b64encode(content).decode()
    lab.run(node, f"echo {text} | base64 -d | dd of=/dev/vdb conv=notrunc,fsync status=none")


def copy_with(lab: Any, folder: Path, hosts: str) -> Path:
    """The lab's inventory with other machines."""
    copy = folder / "site"
    shutil.copytree(lab.inventory, copy, symlinks=True)
    (copy / "hosts.yml").write_text(hosts)
    return copy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "the signature ext4"),
        (lvm_label(), "the signature LVM2_member (LVM)"),
        (dos_partition_table(), "the signature dos (partition table)"),
        (b"a page that no tool knows", "data without a known signature in its first or last MiB"),
    ],
    ids=["ext4", "lvm", "partition-table", "unknown-data"],
)
def test_a_disk_that_holds_something_is_refused_and_the_others_are_mounted(
    content: bytes | None, words: str, blank_lab: Any, play: Any
) -> None:
    blank_lab.reset("te2")
    if content is None:
        blank_lab.run("te2", "mkfs.ext4 -q /dev/vdb")
    else:
        write_to_disk(blank_lab, "te2", content)
    before = blank_lab.out("te2", DISK)

    run = play("data_disk", ok=False)

    assert run.returncode != 0
    refusal = f"te2: use /dev/vdb as the data disk: it holds {words}; nothing was written"
    assert refusal in " ".join(run.output.split())
    assert blank_lab.out("te2", DISK) == before
    assert blank_lab.run("te2", "grep data /etc/fstab", check=False).returncode != 0
    assert [node for node, counts in run.counts.items() if counts["failed"]] == ["te2"]
    assert blank_lab.out("te3", "findmnt -n -o FSTYPE /data") == "ext4"


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
