"""Each check of a rehearsal fails on real machines whose image was spoilt where no scan of files sees it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provision.commands.folders import user_cache
from provision.images.files import read_manifest, unpack
from tests.lab.conftest import LabUnderTest, made, playbook, provision

pytestmark = pytest.mark.long
UNIT = """[Unit]
After=local-fs.target data.mount
Before=ssh.service
[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/lib/spoil.sh
[Install]
WantedBy=multi-user.target
"""
# One identity for all at the first boot; at the second another one, and what was right is so no longer.
SHARED = """
if [ ! -e /var/lib/booted ]; then
  touch /var/lib/booted
  echo 0123456789abcdef0123456789abcdef >/etc/machine-id
  base64 -d /usr/local/lib/key >/etc/ssh/ssh_host_ed25519_key; chmod 600 /etc/ssh/ssh_host_ed25519_key
  ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key >/etc/ssh/ssh_host_ed25519_key.pub
  ssh-keygen -q -t ecdsa -N '' -f /etc/ssh/ssh_host_ecdsa_key
else
  touch /var/lib/booted_twice
  tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
  sed -i '/ te1$/d' /etc/hosts
  sed -i 's/"digest": "[^"]*"/"digest": "other"/' /etc/clusterwright/environment.json
  umount /srv/scratch
fi
"""
LITTLE_SHARED_MEMORY = "mount -o remount,size=1m /dev/shm\n"
# Keys that are not announced, a disk that is not grown, the first of two copies, a blank one formatted.
FIRST_BOOT = {
    '"/etc/ssh/ssh_host_*_key.pub"': '"/etc/ssh/ssh_host_ed25519_key.pub"',
    "check(path) or grow(path)": "check(path)",
    "    if len(ours) != 1:\n        return refusal(ours, image)\n": (
        "    if os.path.exists('/var/lib/booted_twice'):\n"
        "        return 'nothing'\n"
        "    ours = ours[:1]\n"
        "    if not ours:\n"
        "        run('mkfs.ext4', '-q', '/dev/vdb')\n"
        "        os.makedirs(image['data_path'], exist_ok=True)\n"
        "        run('mount', '-t', 'tmpfs', 'tmpfs', image['data_path'])\n"
        "        return 'no disk'\n"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in `folder`, of a node of `lab`, and its system disk unpacked, which a rehearsal boots."""

    lab: LabUnderTest
    folder: Path
    root: Path

    def spoil(self, script: str) -> None:
        units = self.root / "etc/systemd/system"
        (self.root / "usr/local/lib/spoil.sh").write_text(script)
        (units / "spoil.service").write_text(UNIT)
        (units / "multi-user.target.wants/spoil.service").symlink_to("/etc/systemd/system/spoil.service")

    def rehearse(self) -> tuple[str, dict[str, str]]:
        """The verdict, and the checks that failed with what each found."""
        words = ("-i", str(self.lab.inventory), "--name", "respoilt", "--subnet", "10.77.221.0/24", "--json")
        said = provision("image", "rehearse", str(self.folder), *words, timeout_seconds=590, check=False)
        rehearsal = json.loads(said.stdout)["rehearsal"]
        assert said.returncode == {"proven": 0, "refused": 1}[rehearsal["verdict"]], said.stderr
        failed = {check["name"]: check["found"] for check in rehearsal["checks"] if not check["passed"]}
        return rehearsal["verdict"], failed


@pytest.fixture(scope="module")
def baked(
    mirror: None, lab_machine: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LabUnderTest, Path]]:
    """A lab of one node, with data and Miniconda where few have them, and the folder with an image of it."""
    for lab in made("spoilt", "10.77.220.0/24", 1):
        places = {"cluster_data_path": "/srv/scratch", "miniconda_prefix": "/srv/scratch/conda"}
        (lab.inventory / "group_vars" / "all" / "places.yml").write_text(json.dumps(places))
        lab.run("te1", "mkdir /data; echo theirs >/data/notes")
        playbook(lab)
        folder = tmp_path_factory.mktemp("baked") / "image"
        words = ("-i", str(lab.inventory), "--output", str(folder))
        provision("image", "bake", "te1", *words, timeout_seconds=550)
        yield lab, folder


@pytest.fixture
def image(baked: tuple[LabUnderTest, Path]) -> Iterator[Image]:
    """Unpacked anew for each test, where a rehearsal looks for it."""
    lab, folder = baked
    provision("lab", "down", "--name", "respoilt")
    root = unpack(folder, read_manifest(folder, key=None), user_cache()).root
    yield Image(lab=lab, folder=folder, root=root)
    shutil.rmtree(root.parent)


def test_an_image_of_a_site_with_other_places_is_proven(image: Image) -> None:
    assert (image.root / "data" / "notes").read_text() == "theirs\n"
    assert image.rehearse() == ("proven", {})


def test_machines_that_are_not_what_they_must_be_fail_every_check(image: Image, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (image.root / "usr/local/lib/key").write_bytes(base64.b64encode((tmp_path / "key").read_bytes()))
    program = image.root / "usr/local/lib/clusterwright/first_boot.py"
    for right, wrong in FIRST_BOOT.items():
        assert program.read_text().count(right) == 1
        program.write_text(program.read_text().replace(right, wrong))
    image.spoil(SHARED)

    verdict, failed = image.rehearse()

    assert verdict == "refused"
    assert set(failed) == {
        "different machine-id",
        "different host keys",
        "host keys as announced",
        "identity outlives a reboot",
        "name and /etc/hosts",
        "data disk after a reboot",
        "environment digest",
        "boot without a data disk",
        "boot with two copies of it",
        "boot with a blank disk",
        "boot with a grown disk",
    }


def test_machines_that_fail_the_smoke_test_are_refused(image: Image) -> None:
    image.spoil(LITTLE_SHARED_MEMORY)

    verdict, failed = image.rehearse()

    [(name, found)] = failed.items()
    assert verdict == "refused"
    assert name == "joins, smoke test passes"
    assert "shared memory" in found
