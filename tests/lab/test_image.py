"""Images: baked from a node that goes on, refused where something is left, booted twice, restored unattended."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from provision.commands.rehearse import first_boot, renewed
from provision.edges import ssh
from provision.fleet.image_files import Unpacked, read_manifest, scan
from provision.lab import disks
from provision.lab.disks import Kind
from provision.lab.layout import folder_of
from provision.lab.record import load
from tests.lab.conftest import LabUnderTest, provision

ENVIRONMENT = "/data/miniconda3/envs/llm"
IDENTITY = (
    "cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub /root/.ssh/* /etc/hosts /etc/hostname /etc/fstab "
    "/etc/clusterwright/*.json; grep -c . /root/.bash_history; hostname; findmnt -no SOURCE /data"
)


@pytest.fixture(scope="module")
def baked(converged_lab: LabUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An image of te1, and what te1 was before and after."""
    folder = tmp_path_factory.mktemp("image")
    converged_lab.run("te1", "echo secret-command >/root/.bash_history; echo hf_x >/root/.netrc")
    (folder / "before").write_text(converged_lab.out("te1", IDENTITY))
    words = ("-i", str(converged_lab.inventory), "--output", str(folder / "image"), "--json")
    said = provision("image", "bake", "te1", *words, timeout_seconds=550)
    (folder / "said.json").write_text(said.stdout)
    (folder / "after").write_text(converged_lab.out("te1", IDENTITY))
    converged_lab.run("te1", "rm /root/.bash_history /root/.netrc")
    yield folder


def test_a_node_that_was_baked_is_the_node_that_it_was(baked: Path, converged_lab: LabUnderTest) -> None:
    image = json.loads((baked / "said.json").read_text())

    assert (baked / "after").read_text() == (baked / "before").read_text()
    assert image["rehearsal"] == {"verdict": "unproven"}
    assert {"system.tar.zst", "data.raw.zst"} == set(image["layers"])
    assert converged_lab.run("te1", "findmnt /run/clusterwright/image/root", check=False).returncode == 1
    assert converged_lab.out("te1", "touch /data/thawed && rm /data/thawed && echo yes") == "yes"


@pytest.fixture(scope="module")
def rehearsed(baked: Path, converged_lab: LabUnderTest) -> Mapping[str, Any]:
    words = ("-i", str(converged_lab.inventory), "--subnet", "10.77.203.0/24", "--json")
    said = provision("image", "rehearse", str(baked / "image"), *words, timeout_seconds=590)
    found: Mapping[str, Any] = json.loads(said.stdout)
    return found


def test_two_machines_from_the_image_show_all_that_they_must(
    rehearsed: Mapping[str, Any], baked: Path, converged_lab: LabUnderTest
) -> None:
    checks = rehearsed["rehearsal"]["checks"]

    assert [check["name"] for check in checks if not check["passed"]] == []
    assert len(checks) == 13
    key = converged_lab.lab.folder / "secrets" / "cluster_key"
    assert read_manifest(baked / "image", key=key)["rehearsal"]["verdict"] == "proven"
    assert not folder_of("rehears").exists()


@pytest.fixture(scope="module")
def unpacked(rehearsed: Mapping[str, Any]) -> Unpacked:
    from provision.commands.folders import user_cache
    from provision.core.image_manifest import content_of

    place = user_cache() / "images" / content_of(rehearsed)
    return Unpacked(root=place / "root", data=place / "data.raw")


TOKEN = "hf_" + "a" * 34
SPOILT = {
    "host keys left": ("host-key", "etc/ssh/ssh_host_ed25519_key", "x"),
    "machine-id left": ("machine-id", "etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    "hub token in a dotfile": ("hub-token", "root/.bashrc", f"export HF_TOKEN={TOKEN}\n"),
    "key in root's history": ("private-key", "root/.bash_history", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
    "fstab by /dev name": ("fstab", "etc/fstab", "/dev/vdb /data ext4 defaults 0 2\n"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_image_is_refused_by_name(name: str, unpacked: Unpacked) -> None:
    rule, path, text = SPOILT[name]
    place = unpacked.root / path
    before = place.read_bytes() if place.exists() else None
    place.write_text(text)

    try:
        found = scan(unpacked)
    finally:
        place.unlink() if before is None else place.write_bytes(before)

    assert any(line.startswith(f"{rule}: {path}: ") for line in found), found


def test_an_image_whose_environment_has_one_changed_file_is_refused_by_name(
    unpacked: Unpacked, tmp_path: Path
) -> None:
    copy = tmp_path / "data.raw"
    subprocess.run(["cp", "--sparse=always", unpacked.data, copy], check=True)
    program = 'mount -o loop "$1" "$2"; echo changed >>"$2"/miniconda3/envs/llm/lib/python3.11/this.py'
    words = ["unshare", "--mount", "sh", "-ec", program, "spoil", copy, tmp_path]
    subprocess.run(words, check=True)

    (found,) = scan(Unpacked(root=unpacked.root, data=copy))

    assert found == "environment: data/miniconda3/envs/llm: changed lib/python3.11/this.py"


@pytest.fixture(scope="module")
def clone(unpacked: Unpacked, baked: Path) -> Iterator[LabUnderTest]:
    """A lab of one machine from the image, which knows no controller."""
    up = (
        "up",
        "--name",
        "clone",
        "--subnet",
        "10.77.204.0/24",
        "--nodes",
        "1",
        "--image",
        str(baked / "image"),
    )
    provision("lab", *up, timeout_seconds=300)
    found = load(folder_of("clone"))
    assert found is not None
    yield LabUnderTest(lab=found)
    provision("lab", "down", "--name", "clone")


def said(clone: LabUnderTest, *kinds: Kind, spoil: str = "") -> Mapping[str, Any]:
    """What a machine's first boot shows with these disks; `spoil` is a shell command on its own disk, $1."""
    node = clone.lab.nodes[0]
    make = disks.make

    def spoilt(path: Path, *, size: int, content: Path | None = None) -> None:
        make(path, size=size, content=content)
        if spoil and path.name == "disk.img":
            subprocess.run(["sh", "-ec", spoil, "spoil", path], check=True, capture_output=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disks, "make", spoilt)
        machine = renewed(clone.lab, 0, kinds, mirror=node.folder, report=lambda _: None)
    return first_boot(machine)


def test_the_order_of_two_disks_plays_no_part(clone: LabUnderTest) -> None:
    seen = said(clone, Kind.blank, Kind.own)
    first = clone.out("te1", "findmnt -no SOURCE /data; blkid -p /dev/vdb; echo $?")
    clone.power_off("te1")
    disks.choose(clone.lab, clone.lab.nodes[0], [Kind.own, Kind.blank])
    clone.power_on("te1")
    second = clone.out("te1", "findmnt -no SOURCE /data; blkid -p /dev/vdc; echo $?")

    assert seen["mounted"]
    assert first.split() == ["/dev/vdc", "2"]
    assert second.split() == ["/dev/vdb", "2"]


def test_a_dirty_file_system_is_mended_and_a_damaged_one_left_alone(clone: LabUnderTest) -> None:
    dirty = said(clone, Kind.own, spoil='debugfs -w -R "ssv state 0" "$1"')
    damaged = said(clone, Kind.own, spoil='debugfs -w -R "clri <2>" "$1"')

    assert dirty["mounted"]
    assert not damaged["mounted"]
    assert "damaged, not mounted" in damaged["state"]["data"]
    assert "e2fsck -f /dev/vdb" in damaged["state"]["data"]


def test_a_full_disk_is_mounted_and_said_to_be_full(clone: LabUnderTest) -> None:
    fill = 'm=$(mktemp -d); unshare --mount sh -c \'mount -o loop "$1" "$2"; cat /dev/zero >"$2/zeros"; true\' x "$1" $m'

    seen = said(clone, Kind.own, spoil=fill)

    assert seen["mounted"]
    assert seen["state"]["data"].endswith(", full")


STEPS = ("e2fsck", "tune2fs", "mount", "resize2fs", "hostname")


def test_a_first_boot_that_is_cut_off_at_any_step_begins_again(clone: LabUnderTest) -> None:
    said(clone, Kind.own)
    clone.run(
        "te1", "systemctl stop clusterwright-first-boot; umount /data; rm -f /etc/fstab; touch /etc/fstab"
    )
    program = "/usr/local/lib/clusterwright/first_boot.py"
    # Each step's program is there under its own name, and the first boot is killed when it comes to it.
    stub = (
        'mkdir -p /run/cut && printf "#!/bin/sh\\nkill -9 \\$PPID\\n" >/run/cut/{0} && chmod +x /run/cut/{0}'
    )

    for step in STEPS[:4]:
        clone.run("te1", f"rm -rf /run/cut /var/lib/clusterwright/first_boot.json; {stub.format(step)}")
        cut = clone.run("te1", f"PATH=/run/cut:$PATH python3 {program}", check=False)
        assert cut.returncode == 137, f"{step}: {cut.stdout}{cut.stderr}"
        whole = clone.run("te1", f"python3 {program}")
        assert "data: mounted /dev/vdb" in whole.stdout, f"{step}: {whole.stdout}"
        assert clone.out("te1", "findmnt -no SOURCE /data; grep -c /data /etc/fstab").split() == [
            "/dev/vdb",
            "1",
        ]
        clone.run("te1", "umount /data")


def test_a_machine_calls_until_its_controller_answers_and_keeps_its_name(clone: LabUnderTest) -> None:
    said(clone, Kind.own)
    secret = clone.lab.folder / "secrets" / "join_secret"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("shared\n")
    told = json.dumps({"controller": f"{clone.lab.gateway}:8766", "secret": "shared"})
    clone.run("te1", f"mkdir -p /run/clusterwright; echo '{told}' >/run/clusterwright/join.json")
    clone.run(
        "te1", "rm -f /var/lib/clusterwright/first_boot.json; systemctl restart clusterwright-first-boot"
    )

    provision(
        *("restore", "-i", str(clone.inventory), "--port", "8766", "--timeout", "60"), check=False
    )  # one node alone passes no smoke test over gloo
    machine = ssh_machine(clone)
    state = json.loads(
        ssh.run(machine, ("cat", "/var/lib/clusterwright/first_boot.json"), timeout_seconds=30).stdout
    )

    assert state["name"] == "te1"
    assert clone.out("te1", "hostname") == "te1"


def ssh_machine(clone: LabUnderTest) -> Any:
    from provision.commands.demo import machines_of

    return machines_of(clone.lab)[0]


def test_nothing_of_a_rehearsal_stays(rehearsed: Mapping[str, Any]) -> None:
    assert not shutil.which("nothing")
    assert not folder_of("rehears").exists()
