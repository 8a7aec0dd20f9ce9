"""The data disk of a node: blank at first, its own, back after a reboot or a cut of power, gone on reset."""

from __future__ import annotations

from tests.lab.conftest import LabUnderTest

FORMAT = "mkfs.ext4 -q -L cw-data /dev/vdb && mkdir -p /data"
BY_UUID = (
    "UUID=$(blkid -s UUID -o value /dev/vdb) /data ext4 defaults,nofail,x-systemd.device-timeout=30s 0 2"
)


def test_a_fresh_disk_is_blank_and_has_the_size_that_was_asked_for(fresh_lab: LabUnderTest) -> None:
    assert fresh_lab.out_of_all("blockdev --getsize64 /dev/vdb") == [str(12 << 30)] * 4
    assert fresh_lab.out_of_all("blkid -p /dev/vdb; echo $?") == ["2"] * 4
    assert fresh_lab.out_of_all("wipefs --no-act /dev/vdb") == [""] * 4


def test_the_disk_is_the_only_block_device_in_dev(lab: LabUnderTest) -> None:
    assert lab.out("te1", "for i in /dev/*; do test -b $i && echo $i; done; true") == "/dev/vdb"


def test_links_appear_when_a_file_system_is_made_and_go_when_it_is_wiped(lab: LabUnderTest) -> None:
    wait = "for i in $(seq 50); do test -e /dev/disk/by-label/cw-data {} && exit 0; sleep 0.1; done; exit 1"

    lab.run("te1", FORMAT)
    lab.run("te1", wait.format(""))
    uuid = lab.out("te1", "blkid -s UUID -o value /dev/vdb")
    target = lab.out("te1", f"readlink -f /dev/disk/by-uuid/{uuid}")
    lab.run("te1", "wipefs --all --quiet /dev/vdb")
    lab.run("te1", wait.format("|| exit 0; false"))

    assert target == "/dev/vdb"


def test_a_disk_in_fstab_is_mounted_again_after_a_reboot_and_an_absent_one_does_not_stop_it(
    lab: LabUnderTest,
) -> None:
    absent = "UUID=11111111-2222-3333-4444-555555555555 /absent ext4 nofail,x-systemd.device-timeout=5s 0 2"
    lab.run(
        "te2", f"{FORMAT} && echo {BY_UUID} >>/etc/fstab && mkdir -p /absent && echo {absent} >>/etc/fstab"
    )
    lab.run("te2", "mount /data && echo kept >/data/file")

    lab.reboot("te2")

    assert lab.out("te2", "findmnt -no SOURCE /data") == "/dev/vdb"
    assert lab.out("te2", "cat /data/file") == "kept"
    assert lab.run("te2", "findmnt /absent", check=False).returncode == 1
    assert lab.out("te2", "systemctl is-system-running --wait") == "running"


def test_a_disk_and_a_root_survive_a_cut_of_power_and_not_a_reset(lab: LabUnderTest) -> None:
    lab.reset("te3")
    lab.run(
        "te3", f"{FORMAT} && mount /dev/vdb /data && echo kept >/data/file && echo kept >/root/file && sync"
    )

    lab.power_off("te3")
    off = lab.status()["te3"]
    lab.power_on("te3")
    after_power = lab.out("te3", "mount /dev/vdb /data && cat /data/file /root/file")
    lab.reset("te3")

    assert (off["state"], off["pid"]) == ("off", None)
    assert after_power == "kept\nkept"
    assert lab.run("te3", "blkid -p /dev/vdb", check=False).returncode == 2
    assert lab.run("te3", "test -e /root/file", check=False).returncode == 1


def test_nobody_elses_disk_changes(lab: LabUnderTest) -> None:
    lab.reset("te1", "te4")

    lab.run("te1", FORMAT)

    assert lab.run("te4", "blkid -p /dev/vdb", check=False).returncode == 2


def test_a_node_that_powers_itself_off_stays_off_until_it_is_switched_on(lab: LabUnderTest) -> None:
    lab.run("te4", "systemctl poweroff", check=False)
    answers = "ping -c1 -W1 -q 10.77.200.14 >/dev/null"
    lab.run("te1", f"for i in $(seq 100); do {answers} || exit 0; sleep 0.3; done; exit 1")
    states = {name: node["state"] for name, node in lab.status().items()}

    lab.power_on("te4")

    assert states == {"te1": "running", "te2": "running", "te3": "running", "te4": "off"}
    assert lab.out("te4", "hostname") == "debian"
