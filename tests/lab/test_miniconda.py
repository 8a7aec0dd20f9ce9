"""The role `miniconda` on bare nodes: a damaged installer, an interrupted one, and what conda then can do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from provision.commands.folders import user_cache
from provision.lab.mirror.installers import installer_in
from tests.lab.conftest import MIRROR, LabUnderTest, changed, playbook, provision

PREFIX = "/data/miniconda3"
CONDA = f"{PREFIX}/bin/conda"


@pytest.fixture(scope="module")
def installer(lab_machine: None) -> Path:
    provision(*MIRROR, timeout_seconds=1200)
    return installer_in(user_cache() / "mirror" / "current" / "miniconda")


@pytest.fixture(scope="module")
def disks(installer: Path, spare_lab: LabUnderTest) -> LabUnderTest:
    """Blank nodes with their data disks mounted."""
    spare_lab.reset()
    playbook(spare_lab, "--tags", "data_disk")
    return spare_lab


@pytest.fixture
def damaged(installer: Path, disks: LabUnderTest, tmp_path: Path) -> Iterator[str]:
    """The address of an installer with one flipped byte."""
    content = bytearray(installer.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / installer.name).write_bytes(content)
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer((disks.lab.gateway, 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{disks.lab.gateway}:{server.server_port}/{installer.name}"
        server.shutdown()


def test_an_installer_with_one_flipped_byte_is_refused_and_nothing_is_installed(
    disks: LabUnderTest, damaged: str
) -> None:
    finished = playbook(
        disks, "--tags", "miniconda", "-e", f"miniconda_installer_source={damaged}", check=False
    )

    assert finished.returncode != 0
    for node in disks.nodes:
        assert f"Miniconda is not installed on {node}" in finished.stdout
    assert "checksum" in finished.stdout
    assert disks.out_of_all("ls -A /data") == ["lost+found"] * len(disks.nodes)


def test_an_interrupted_installation_is_noticed_and_made_again(disks: LabUnderTest) -> None:
    """te1 loses its power while the installer runs there."""
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(playbook, disks, "--tags", "miniconda", check=False)
        disks.run("te1", f"until ls {PREFIX}/pkgs/*; do sleep 0.2; done", timeout_seconds=300)
        disks.power_off("te1")
        assert cut.result().returncode != 0
    disks.power_on("te1")
    left = disks.out("te1", f"cat {PREFIX}/.clusterwright-installer")

    first = playbook(disks, "--tags", "miniconda")
    second = playbook(disks, "--tags", "miniconda")

    assert left == '{"unfinished": true}'
    assert changed(first)["te1"] > 0
    assert not any(changed(second).values())
    for command in (
        f"{CONDA} info --envs",
        f"{CONDA} create -y -q -n solved python=3.11 pip",
        f"{CONDA} run -n solved python -c 'import ssl, sqlite3, ctypes, lzma, bz2, zlib, readline, uuid'",
        "bash -lc 'conda activate solved && test $CONDA_DEFAULT_ENV = solved && conda deactivate'",
        "sh -lc 'conda activate solved && python -m pip --version'",
        f"HOME=/tmp {CONDA} init bash && grep -q 'conda initialize' /tmp/.bashrc",
    ):
        disks.run("te1", command)


def test_one_that_was_installed_for_another_place_is_refused_and_renamed_only_when_asked(
    disks: LabUnderTest, installer: Path
) -> None:
    """As where cluster_data_path has changed: it is ours and complete, and none of its programs starts."""
    disks.out_of_all(f"rm -rf /data/*mini* /data/.clusterwright-*; mkdir -p {PREFIX}/bin {PREFIX}/envs/mine")
    disks.out_of_all(f"printf '#!/scratch/miniconda3/bin/python\\n' >{CONDA}; chmod +x {CONDA}")
    digest = sha256(installer.read_bytes()).hexdigest()
    disks.out_of_all(f"echo {digest} >{PREFIX}/.clusterwright-installer; echo theirs >{PREFIX}/envs/mine/a")
    before = disks.out_of_all("ls -lR /data")

    refused = playbook(disks, "--tags", "miniconda", check=False)
    left = disks.out_of_all("ls -lR /data")
    playbook(disks, "--tags", "miniconda", "-e", '{"miniconda_rename_foreign": true}')
    again = playbook(disks, "--tags", "miniconda")

    said = " ".join(refused.stdout.split())
    assert "was installed in /scratch/miniconda3, where alone its programs start" in said
    assert left == before
    assert disks.out_of_all(f"cat {PREFIX}.before-*/envs/mine/a") == ["theirs"] * len(disks.nodes)
    assert all("conda" in version for version in disks.out_of_all(f"{CONDA} --version"))
    assert not any(changed(again).values())
