"""Disks and folders as sites have them: adopted with all that they hold, used as they are, and given back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.conftest import Finished, LabUnderTest, changed, made, playbook, recap

DISK = ("--tags", "data_disk")
# By hand, as on a disk that comes from a snapshot of somebody's machine.
FILLED = """mkdir -p /mnt/disk && mount /dev/vdb /mnt/disk && cd /mnt/disk
mkdir -p models miniconda3/envs/torch/bin miniconda3/bin
head -c 3M /dev/urandom >models/a.bin
for file in envs/torch/bin/python bin/conda .condarc; do echo theirs >miniconda3/$file; done; cd /
chown -R 4321:4321 /mnt/disk/models
find /mnt/disk -type f -exec sha256sum {} + | sed s,/mnt/disk,/data, | sort >/root/before
stat -c '%u %g %a %n' /mnt/disk/models/a.bin | sed s,/mnt/disk,/data, >>/root/before
blkid --probe --output export /dev/vdb >/root/blkid; umount /mnt/disk
"""
NOW = "find /data -type f -exec sha256sum {} + | sort; stat -c '%u %g %a %n' /data/models/a.bin"
THERE = "findmnt --noheadings --output SOURCE,FSTYPE --mountpoint /data; cat /etc/fstab; ls -d /data; true"


@pytest.fixture(scope="module")
def sites(lab_machine: None) -> Iterator[LabUnderTest]:
    yield from made("sites", "10.77.227.0/24", 2)


@pytest.fixture
def blank(sites: LabUnderTest) -> LabUnderTest:
    sites.reset()
    return sites


def given(**variables: object) -> tuple[str, str]:
    return "-e", json.dumps(variables)


def make_xfs(lab: LabUnderTest, node: str) -> None:
    """On a node's data disk, from this machine: nodes lack the program."""
    image = next(found.disk for found in lab.lab.nodes if found.name == node)
    devices = ["losetup", "--associated", str(image), "--noheadings", "--output", "NAME"]
    (device,) = subprocess.run(devices, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["mkfs.xfs", "-q", "-L", "photos", device], check=True)


def said(run: Finished) -> str:
    return " ".join((run.stdout + run.stderr).split())


def teardown(lab: LabUnderTest, **variables: object) -> Finished:
    return playbook(lab, "playbooks/teardown.yml", *given(teardown_confirm=lab.name, **variables))


def test_a_disk_of_a_snapshot_is_adopted_and_given_back(blank: LabUnderTest) -> None:
    """te1 has an ext4 that nothing mounts, te2 an xfs that somebody mounts at /data by a line of his own."""
    blank.run("te1", f"mkfs.ext4 -q -L photos /dev/vdb && {FILLED}")
    make_xfs(blank, "te2")
    blank.run("te2", FILLED)
    blank.run(
        "te2", "mkdir /data; echo 'LABEL=photos /data xfs defaults 0 0' >>/etc/fstab; mount /dev/vdb /data"
    )
    before, kept = blank.out_of_all(THERE), blank.out_of_all("cat /root/before")
    adopt = given(data_disk_adopt="LABEL=photos")

    refused = playbook(blank, *DISK, check=False)
    assert blank.out_of_all(THERE) == before
    run = playbook(blank, *DISK, *adopt)
    again = playbook(blank, *DISK, *adopt)
    miniconda = playbook(blank, "--tags", "miniconda", *adopt, check=False)

    assert [counts["failed"] for node, counts in recap(refused).items() if node != "localhost"] == [1, 1]
    assert "data_disk_adopt: /dev/vdb (or UUID=" in said(refused)
    assert "wipefs" not in said(refused)
    assert "all that it holds stays: lost+found, miniconda3, models" in said(run)
    assert not any(changed(again).values())
    assert blank.out_of_all(NOW) == kept
    assert "te1: install Miniconda in /data/miniconda3: it is there already" in said(miniconda)
    assert "environments: torch" in said(miniconda)
    assert blank.out_of_all("blkid --probe --output export /dev/vdb | diff - /root/blkid") == ["", ""]
    assert blank.out("te2", "tail -n 1 /etc/fstab") == "LABEL=photos /data xfs defaults 0 0"
    blank.reboot("te1")
    assert blank.out("te1", NOW) == kept[0]
    teardown(blank)
    assert blank.out_of_all(THERE) == before
    blank.run("te1", "mkdir -p /data; mount /dev/vdb /data")
    assert blank.out_of_all(NOW) == kept


def test_a_site_without_a_disk_uses_the_folder_as_it_is(blank: LabUnderTest) -> None:
    """te1 has no folder yet; te2 has one of somebody's, and a blank disk that stays blank."""
    blank.run("te2", "mkdir -p /data/models; echo theirs >/data/models/a.bin; chmod 700 /data/models")
    none = given(data_disk_device="none")

    playbook(blank, *DISK, *none)
    again = playbook(blank, *DISK, *none)
    erased = playbook(
        blank,
        "playbooks/teardown.yml",
        "--limit",
        "te2,localhost",
        *given(teardown_confirm=blank.name, teardown_erase_data=True),
        check=False,
    )

    assert not any(changed(again).values())
    assert blank.out_of_all("stat -c '%U %a' /data; blkid --probe /dev/vdb; echo $?") == ["root 755\n2"] * 2
    assert "no disk is mounted there, and site.yml made none" in said(erased)
    assert blank.out("te2", "cat /data/models/a.bin; stat -c %a /data/models") == "theirs\n700"


# As a volume of LVM or a share of the node's own: this kernel serves no NFS. In the gate test_no_disk_is_lost
# plans for whatever is mounted there.
@pytest.mark.long
def test_what_somebody_has_mounted_there_is_used_as_it_is_and_stays(blank: LabUnderTest) -> None:
    """te1 has a folder of another disk there, te2 memory; by lines of their own."""
    shared = (
        "mkfs.ext4 -q /dev/vdb; mkdir -p /srv/share /data; mount /dev/vdb /srv/share; mkdir /srv/share/te1"
    )
    blank.run("te1", f"{shared}; mount --bind /srv/share/te1 /data")
    blank.run("te1", "echo '/srv/share/te1 /data none bind 0 0' >>/etc/fstab")
    blank.run("te2", "mkdir /data; echo 'tmpfs /data tmpfs size=64m 0 0' >>/etc/fstab; mount /data")
    look = f"{THERE}; cat /data/a"
    blank.out_of_all("echo theirs >/data/a")
    before, none = blank.out_of_all(look), given(data_disk_device="none")

    refused = playbook(blank, *DISK, *given(data_disk_device="/dev/vdb"), check=False)
    still = blank.out_of_all(look)
    playbook(blank, *DISK, *none)
    again = playbook(blank, *DISK, *none)
    used = blank.out_of_all(look)
    teardown(blank, data_disk_device="none")

    assert [counts["failed"] for node, counts in recap(refused).items() if node != "localhost"] == [1, 1]
    assert still == used == before
    assert not any(changed(again).values())
    assert blank.out_of_all(look) == before


# The gate has every refusal as a case of plan_data_disk, from what a node reports; here real disks report it.
@pytest.mark.long
@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("mkfs.ext4 -q /dev/vdb && debugfs -w -R 'ssv state 2' /dev/vdb", "e2fsck -n -f /dev/vdb"),
        ("mkfs.ext4 -q /dev/vdb && mkdir /models && mount /dev/vdb /models", "cluster_data_path: /models"),
        (
            "mkfs.ext4 -q /dev/vdb && mkdir /data && mount -o ro /dev/vdb /data",
            "mount -o remount,rw /data",
        ),
        ("true", "it holds no file system that is known"),
    ],
    ids=["damaged", "elsewhere", "read-only", "blank"],
)
def test_what_cannot_be_adopted_is_refused_with_how_to_go_on(
    blank: LabUnderTest, prepare: str, words: str
) -> None:
    blank.run("te2", prepare)
    look = f"head -c 64M /dev/vdb | sha256sum; {THERE}"
    before = blank.out("te2", look)

    run = playbook(blank, *DISK, "--limit", "te2,localhost", *given(data_disk_adopt="/dev/vdb"), check=False)

    assert words in said(run)
    assert "nothing was written" in said(run)
    assert blank.out("te2", look) == before
