"""A fault ends in a clear error, with nothing half done, and the healthy nodes finish."""

from __future__ import annotations

import base64
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from tests.lab.conftest import Finished, LabUnderTest, changed, playbook, recap

DISK = "head -c 64M /dev/vdb | sha256sum"
# Until apt-get has met the lock, and some seconds more; then the file says when it let it go.
HOLD_DPKG_LOCK = """\
import fcntl, glob, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
def met():
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            if open(path).read() == "apt-get\\n":
                return True
        except OSError:
            pass
end = time.monotonic() + 120
while not met() and time.monotonic() < end:
    time.sleep(0.02)
if time.monotonic() < end:
    time.sleep(5)
    open("/run/let_go", "w").write(str(time.time()))
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


def playbook_with(lab: LabUnderTest, folder: Path, hosts: str) -> Finished:
    """site.yml with the lab's inventory, but for its machines."""
    copy = folder / "site"
    shutil.copytree(lab.inventory, copy, symlinks=True)
    (copy / "hosts.yml").write_text(hosts)
    return playbook(lab, "-i", str(copy), check=False)


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        ("mkfs.ext4 -q /dev/vdb", "the signature ext4"),
        (write_to_disk(lvm_label()), "the signature LVM2_member (LVM)"),
        (write_to_disk(dos_partition_table()), "the signature dos (partition table)"),
    ],
    ids=["file-system", "lvm", "partition-table"],
)
def test_a_disk_that_holds_something_is_refused_and_the_other_node_finishes(
    fill: str, words: str, mirror: None, spare_lab: LabUnderTest
) -> None:
    spare_lab.reset("te2")
    spare_lab.run("te2", fill)
    before = spare_lab.out("te2", DISK)

    run = playbook(spare_lab, "--tags", "data_disk", check=False)

    said = " ".join((run.stdout + run.stderr).split())
    assert [node for node, counts in recap(run).items() if counts["failed"]] == ["te2"]
    assert "te2: find the data disk by the only blank disk" in said
    assert f"/dev/vdb (12.0 GiB) holds {words}; nothing was written" in said
    assert spare_lab.out("te2", DISK) == before
    assert spare_lab.run("te2", "grep data /etc/fstab", check=False).returncode != 0
    assert spare_lab.out("te1", "findmnt -n -o FSTYPE /data") == "ext4"


def test_two_nodes_with_one_address_stop_the_run_before_any_node(
    mirror: None, spare_lab: LabUnderTest, tmp_path: Path
) -> None:
    hosts = (spare_lab.inventory / "hosts.yml").read_text()
    wrong = hosts.replace(spare_lab.address("te2"), spare_lab.address("te1"))

    run = playbook_with(spare_lab, tmp_path, wrong)

    assert f"te1 and te2 have one address, {spare_lab.address('te1')}" in run.stdout + run.stderr
    assert recap(run) == {}


def test_a_misspelled_variable_stops_the_run_before_any_node(
    mirror: None, spare_lab: LabUnderTest, tmp_path: Path
) -> None:
    wrong = (spare_lab.inventory / "hosts.yml").read_text() + "  vars: {ssh_trsut_user: root}\n"

    run = playbook_with(spare_lab, tmp_path, wrong)

    assert "ssh_trsut_user. Did you mean ssh_trust_user?" in run.stdout + run.stderr
    assert recap(run) == {}


def test_apt_waits_for_another_process_that_holds_its_lock(converged_lab: LabUnderTest) -> None:
    converged_lab.run("te2", "apt-get -qq remove tmux")
    converged_lab.run("te2", f"systemd-run --quiet python3 -c '{HOLD_DPKG_LOCK}'")

    run = playbook(converged_lab, "--tags", "base_packages")

    let_go = float(converged_lab.out("te2", "cat /run/let_go; rm /run/let_go"))
    installed = float(converged_lab.out("te2", "stat -c %.9Z /usr/bin/tmux"))
    assert installed > let_go
    assert changed(run)["te2"] == 1
    assert converged_lab.out("te2", "tmux -V").startswith("tmux")
