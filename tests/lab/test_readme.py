"""README, followed literally by an ordinary user on a fresh system that has what README asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.bundle.apt_sources import sources_for
from provision.commands.folders import user_cache
from provision.lab.written_site import render
from tests.lab.conftest import ENVIRONMENT, ROOT, LabUnderTest, made

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
HEADING = "## Use it on rented machines"
# What README says must exist beforehand.
ASKED_FOR = "python3,python3-venv,git,make,openssh-client,ca-certificates"
# Lines of README that are not followed here, with what else does.
ELSEWHERE = {
    "ssh te1 zerorun": "test_first_job, test_zerorun",
    ".venv/bin/provision image bake": "test_image",
    ".venv/bin/provision restore": "test_join, test_image",
    ".venv/bin/provision model fetch": "test_model_store, test_hub: a hub is on the internet",
    ".venv/bin/provision doctor --logs": "test_doctor",
}


def lines_of_readme() -> list[str]:
    block = (ROOT / "README.md").read_text().split(HEADING)[1].split("```")[1]
    return [line.split(" #")[0].strip() for line in block.splitlines() if line.strip()]


class Controller:
    """A system of its own, in which ada works in her checkout; its network is this machine's."""

    def __init__(self, folder: Path, release: str) -> None:
        self.root, self.home = folder / "root", folder / "root" / "home" / "ada"
        sources = folder / "sources.list"
        sources.write_text("\n".join([*sources_for(release), ""]))
        make = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", f"--include={ASKED_FOR}"]
        subprocess.run([*make, release, self.root, sources], check=True, capture_output=True, timeout=600)
        for path in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            shutil.copyfile(Path("/") / path, self.root / path)
        subprocess.run(["chroot", self.root, "useradd", "--create-home", "ada"], check=True)

    def owns(self) -> None:
        subprocess.run(["chroot", self.root, "chown", "-R", "ada:", "/home/ada"], check=True)

    def run(self, command: str, *, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """As ada, with nothing of this machine's environment but its certificates."""
        enter = (
            f"mount --bind {self.root} {self.root}; mount -t proc proc {self.root}/proc;"
            f"mount --rbind /dev {self.root}/dev; exec chroot --userspec=ada:ada {self.root}"
            " env -i HOME=/home/ada USER=ada LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin"
            " SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
            ' bash -c "cd ~/clusterwright && $0"'
        )
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*namespaces, "bash", "-c", enter, command],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def machines(mirror: None) -> Iterator[LabUnderTest]:
    """Three machines: two of the site, and one that comes later."""
    yield from made("readme", "10.77.247.0/24", 3)


@pytest.fixture(params=["bookworm", "trixie"])
def controller(request: pytest.FixtureRequest, tmp_path: Path, machines: LabUnderTest) -> Controller:
    """With the checkout, and a key that the machines let in, of which ada knows the host keys."""
    made = Controller(tmp_path, request.param)
    machines.reset()
    subprocess.run(["git", "clone", "-q", ROOT, made.home / "clusterwright"], check=True)
    folder = made.home / ".ssh"
    folder.mkdir(mode=0o700)
    shutil.copy(machines.lab.ssh_key, folder / "id_ed25519")
    shutil.copyfile(machines.lab.known_hosts, folder / "known_hosts")
    made.owns()
    return made


def edited(controller: Controller, machines: LabUnderTest) -> None:
    """What README leaves to the person: the nodes, and from where they install."""
    site, kept = controller.home / "clusterwright" / "inventory" / "mine", controller.home / "mirror"
    addresses = [machines.address(node) for node in machines.nodes]
    nodes = "".join(f"    te{number}: {{ansible_host: {addresses[number - 1]}}}\n" for number in (1, 2))
    (site / "hosts.yml").write_text(f"---\ncluster:\n  hosts:\n{nodes}")
    for path in ("mirror.json", "apt/key.asc", "envs"):
        found = user_cache() / "mirror" / "current" / path
        (kept / path).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if found.is_dir() else shutil.copyfile)(found, kept / path)
    variables = render(machines.lab)["group_vars/all/lab.yml"].split("lab_mirror: ")[1]
    variables = re.sub(r"lab_mirror_folder: >-\n.*\n.*\n", "lab_mirror_folder: /home/ada/mirror\n", variables)
    name = f"---\ncluster_name: {machines.name}\nansible_user: root\ncluster_slots: 1\n"
    name += f"cluster_environment_name: {ENVIRONMENT}\nlab_mirror: "
    (site / "group_vars" / "all" / "site.yml").write_text(name + variables)
    controller.owns()


def test_a_stranger_follows_readme_to_a_proven_cluster(
    controller: Controller, machines: LabUnderTest
) -> None:
    left = set(ELSEWHERE)
    confirm = f"-e teardown_confirm={machines.name}"
    taken_off = f".venv/bin/ansible-playbook playbooks/teardown.yml -i inventory/mine {confirm}"
    for line in [*lines_of_readme(), taken_off]:
        if elsewhere := [start for start in ELSEWHERE if line.startswith(start)]:
            left -= {*elsewhere}
            continue
        done = controller.run(line.replace("10.0.0.5", machines.address("te3")))
        said = done.stdout + done.stderr
        assert "Traceback" not in said, f"{line}\n{said}"
        if "env lock" in line:  # conda itself comes from the internet
            assert "there is no conda, mamba or micromamba on PATH" in said
        else:
            assert done.returncode == 0, f"{line}\n{said}"
        if line.startswith("cp -r inventory/example"):
            edited(controller, machines)
    assert left == set(), "README says these no longer"
