"""Images: baked from a node that goes on, refused where something is left, booted twice, mended disks."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.commands.demo import machines_of
from provision.commands.folders import user_cache
from provision.commands.rehearse import first_boot, renew
from provision.images.files import Unpacked, read_manifest, scan, unpack
from provision.join.server import listening
from provision.join.tokens import Tokens
from provision.join.user_data import write_user_data
from provision.lab import apply, disks
from provision.lab.disks import Kind
from provision.lab.layout import folder_of
from provision.lab.record import load
from provision.nodes.arrivals import Arrivals
from tests.conftest import RecordRefusal
from tests.lab.conftest import LabUnderTest, changed, playbook, provision

STATE = "/var/lib/clusterwright/first_boot.json"
PROGRAM = "/usr/local/lib/clusterwright/first_boot.py"
IDENTITY = (
    "cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub /root/.ssh/* /etc/hosts /etc/hostname /etc/fstab "
    "/etc/clusterwright/*.json /root/.bash_history /root/.netrc; hostname; findmnt -no SOURCE /data"
)


@pytest.fixture(scope="module")
def baked(converged_lab: LabUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of te1, and what te1 was before and after."""
    folder = tmp_path_factory.mktemp("baked")
    converged_lab.run("te1", "echo secret-command >/root/.bash_history; echo hf_x >/root/.netrc")
    (folder / "before").write_text(converged_lab.out("te1", IDENTITY))
    words = ("-i", str(converged_lab.inventory), "--output", str(folder / "image"))
    provision("image", "bake", "te1", *words, timeout_seconds=550)
    (folder / "after").write_text(converged_lab.out("te1", IDENTITY))
    converged_lab.run("te1", "rm /root/.bash_history /root/.netrc")
    return folder


def key_of(lab: LabUnderTest) -> Path:
    return lab.lab.folder / "secrets" / "controller_key"


def test_a_node_that_was_baked_is_the_node_that_it_was(baked: Path, converged_lab: LabUnderTest) -> None:
    image = read_manifest(baked / "image", key=key_of(converged_lab))

    assert (baked / "after").read_text() == (baked / "before").read_text()
    assert image["rehearsal"] == {"verdict": "unproven"}
    assert set(image["layers"]) == {"system.tar.zst", "data.raw.zst"}
    assert converged_lab.out("te1", "grep -c clusterwright/image /proc/self/mountinfo; true") == "0"
    converged_lab.run("te1", "touch /data/thawed && rm /data/thawed")


def test_an_image_holds_the_controllers_public_key_and_no_secret(
    unpacked: Unpacked, converged_lab: LabUnderTest
) -> None:
    """Nor does the node that it was made of."""
    told = json.loads((unpacked.root / "etc/clusterwright/join.json").read_text())
    public = key_of(converged_lab).with_name("join_key.pub").read_text().strip()

    assert told == {"controller_key": public}
    assert converged_lab.out_of_all("ls /etc/clusterwright/join.json 2>/dev/null; true") == [""] * 4


SECRETS = {
    "/etc/clusterwright/join.json": '{"controller": "10.0.0.1:8765", "secret": "of all machines"}',
    "/run/clusterwright/join.json": '{"controller": "10.0.0.1:8765", "token": "a.b", "machines": ["te2"]}',
}


@pytest.mark.attack("left behind")
def test_secrets_with_which_machines_joined_are_taken_away_and_what_is_not_ours_stays(
    converged_lab: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    """An earlier version left one that was the same on all machines, and in the image."""
    words = ("--tags", "runtime", "--limit", "te2,localhost")
    theirs = "/var/lib/cloud/instance/user-data.txt"
    converged_lab.run("te2", f"mkdir -p /run/clusterwright {Path(theirs).parent}")
    for path, text in {**SECRETS, theirs: '{"secret": "theirs"}'}.items():
        converged_lab.run("te2", f"echo '{text}' >{path}")
    look = f"ls {' '.join(SECRETS)} {theirs} 2>/dev/null; true"

    playbook(converged_lab, *words, "--check")
    checked = converged_lab.out("te2", look)
    playbook(converged_lab, *words)
    after = converged_lab.out("te2", look)
    record_refusal(f"of {checked.split()} there is left: {after}")
    converged_lab.run("te2", f"rm {theirs}")

    assert checked.splitlines() == [*SECRETS, theirs]
    assert after == theirs
    assert changed(playbook(converged_lab, *words)) == {"te2": 0}


@pytest.fixture(scope="module")
def rehearsed(baked: Path, converged_lab: LabUnderTest) -> Mapping[str, Any]:
    provision("lab", "down", "--name", "rehears")
    words = ("-i", str(converged_lab.inventory), "--subnet", "10.77.226.0/24", "--json")
    said = provision("image", "rehearse", str(baked / "image"), *words, timeout_seconds=590)
    found: Mapping[str, Any] = json.loads(said.stdout)
    return found


# In the gate one boots from it (below), test_join lets two in, test_image_checks judges what they show.
@pytest.mark.long
def test_two_machines_from_the_image_show_all_that_they_must(
    rehearsed: Mapping[str, Any], baked: Path, converged_lab: LabUnderTest
) -> None:
    checks = rehearsed["rehearsal"]["checks"]

    assert [check for check in checks if not check["passed"]] == []
    assert len(checks) == 14
    assert read_manifest(baked / "image", key=key_of(converged_lab))["rehearsal"]["verdict"] == "proven"
    assert not folder_of("rehears").exists()


@pytest.fixture(scope="module")
def unpacked(baked: Path) -> Unpacked:
    return unpack(baked / "image", read_manifest(baked / "image", key=None), user_cache())


SPOILT = {
    ("host-key", "etc/ssh/ssh_host_ed25519_key"): "x",
    ("machine-id", "etc/machine-id"): "0123456789abcdef0123456789abcdef\n",
    ("hub-token", "root/.bashrc"): f"export HF_TOKEN=hf_{'a' * 34}\n",
    ("private-key", "root/.bash_history"): "-----BEGIN OPENSSH PRIVATE KEY-----\n",
    ("fstab", "etc/fstab"): "/dev/vdb /data ext4 defaults 0 2\n",
}


def test_a_spoilt_system_disk_is_refused_by_name(unpacked: Unpacked) -> None:
    places = {path: unpacked.root / path for _, path in SPOILT}
    before = {path: place.read_bytes() if place.exists() else None for path, place in places.items()}
    try:
        for (_, path), text in SPOILT.items():
            places[path].write_text(text)
        found = scan(unpacked)
    finally:
        for path, content in before.items():
            places[path].unlink() if content is None else places[path].write_bytes(content)

    named = {tuple(line.split(": ")[:2]) for line in found}
    assert named == {*SPOILT, ("history", "root/.bash_history")}


def on_the_disk(image: Path, place: Path, command: str) -> None:
    """Runs a shell command in a data disk's file system, $1, which is mounted for it alone."""
    words = ["sh", "-ec", f'mount -o loop "$0" "$1"; {command}', image, place]
    subprocess.run(["unshare", "--mount", *words], check=True)


# In the gate test_image_tree has it, without an environment of gigabytes.
@pytest.mark.long
def test_an_environment_with_one_changed_file_is_refused_by_name(unpacked: Unpacked, tmp_path: Path) -> None:
    copy, file = tmp_path / "data.raw", "lib/python3.11/this.py"
    disks.make(copy, size=0, content=unpacked.data)
    on_the_disk(copy, tmp_path, f'echo "# changed" >>"$1/miniconda3/envs/torch/{file}"')

    found = scan(Unpacked(root=unpacked.root, data=copy))

    assert found == [f"environment: data/miniconda3/envs/torch: changed {file}"]


@pytest.fixture(scope="module")
def clone(baked: Path) -> Iterator[LabUnderTest]:
    """A lab of one machine from the image, which knows no controller."""
    name, image = "clone", str(baked / "image")
    provision("lab", "down", "--name", name)
    up = ("up", "--name", name, "--subnet", "10.77.204.0/24", "--nodes", "1", "--image", image)
    up = (*up, "--disk-size", "13G")  # so that the first boot has to grow it
    provision("lab", *up, timeout_seconds=300)
    found = load(folder_of(name))
    assert found is not None
    yield LabUnderTest(lab=found)
    provision("lab", "down", "--name", name)


def seen(clone: LabUnderTest, *kinds: Kind) -> Mapping[str, Any]:
    """What the machine, made anew with these disks, shows after its first boot."""
    renew(clone.lab, clone.lab.nodes[0], kinds)
    return switched_on(clone)


def switched_on(clone: LabUnderTest) -> Mapping[str, Any]:
    clone.power_on("te1")
    apply.describe(clone.lab)
    return first_boot(machines_of(clone.lab)[0])


def test_the_order_of_two_disks_plays_no_part(clone: LabUnderTest) -> None:
    look = "findmnt -no SOURCE /data; blkid -p /dev/{}; echo $?"
    seen(clone, Kind.blank, Kind.own)
    first = clone.out("te1", look.format("vdb"))
    clone.power_off("te1")
    disks.choose(clone.lab, clone.lab.nodes[0], [Kind.own, Kind.blank])
    switched_on(clone)
    second = clone.out("te1", look.format("vdc"))

    assert first.split() == ["/dev/vdc", "2"]
    assert second.split() == ["/dev/vdb", "2"]


@pytest.mark.parametrize(("spoil", "mounted"), [("ssv state 0", True), ("clri <2>", False)])
def test_a_dirty_file_system_is_mended_and_a_damaged_one_left_alone(
    clone: LabUnderTest, spoil: str, mounted: bool
) -> None:
    node = clone.lab.nodes[0]
    renew(clone.lab, node, [Kind.own])
    subprocess.run(["debugfs", "-w", "-R", spoil, node.disk], check=True, capture_output=True)

    found = switched_on(clone)

    assert found["mounted"] is mounted
    assert ("is damaged, not mounted" in found["state"]["data"]) is not mounted


def test_a_full_disk_is_mounted_and_said_to_be_full(clone: LabUnderTest, tmp_path: Path) -> None:
    node = clone.lab.nodes[0]
    renew(clone.lab, node, [Kind.own])
    subprocess.run(["sh", "-c", 'e2fsck -fp "$0"; resize2fs "$0"', node.disk], check=True)
    on_the_disk(node.disk, tmp_path, 'fallocate -l "$(df -B1 --output=avail "$1" | tail -1)" "$1/all"')

    found = switched_on(clone)
    clone.run("te1", "rm /data/all")

    assert found["mounted"]
    assert found["state"]["data"].endswith(", full")


@pytest.mark.parametrize("step", ["e2fsck", "tune2fs", "mount", "resize2fs", "hostname"])
def test_a_first_boot_that_is_cut_off_at_a_step_begins_again(
    clone: LabUnderTest, converged_lab: LabUnderTest, step: str, tmp_path: Path
) -> None:
    """Killed by what it starts for this step, it leaves what a cut of power there would leave."""
    clone.run("te1", "systemctl stop clusterwright-first-boot; umount -q /data; : >/etc/fstab")
    clone.run("te1", "e2fsck -fp /dev/vdb; resize2fs /dev/vdb 12G")  # smaller than its disk, as at first
    clone.run("te1", f"mkdir -p /run/clusterwright /run/cut; rm -f /run/cut/* {STATE}")
    clone.run("te1", f"printf '#!/bin/sh\\nkill -9 $PPID\\n' >/run/cut/{step}; chmod +x /run/cut/{step}")
    machines, tokens = machines_of(clone.lab), Tokens(folder=clone.lab.folder / "secrets")
    arrivals = Arrivals(machines, tokens, key_of(converged_lab).with_name("join_key"), lambda *_: None)
    expected, gateway = [machine.address for machine in machines], clone.lab.gateway
    with listening(gateway, 0, expected=expected, on_call=arrivals.on_call, report=print) as port:
        told, expires = f"{gateway}:{port}", time.time() + 600
        write_user_data(tmp_path, machines, tokens, controller=told, shared=False, expires=expires)
        clone.run("te1", f"echo '{(tmp_path / 'te1.json').read_text()}' >/run/clusterwright/join.json")
        cut = clone.run("te1", f"PATH=/run/cut:$PATH python3 {PROGRAM}; echo ended $?")
        whole = clone.run("te1", f"python3 {PROGRAM}; cat {STATE}; hostname")

    assert clone.out("te1", "ls /run/clusterwright; grep -c token /etc/clusterwright/join.json; true") == "0"
    assert cut.stdout.endswith("ended 137\n")  # SIGKILL
    assert "data: mounted /dev/vdb" in whole.stdout
    assert '"name": "te1"' in whole.stdout
    assert whole.stdout.splitlines()[-1] == "te1"
    assert clone.out("te1", "findmnt -no SOURCE /data; grep -c /data /etc/fstab").split() == ["/dev/vdb", "1"]
