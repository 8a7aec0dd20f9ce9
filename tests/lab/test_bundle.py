"""A site whose nodes have one source: a bundle, made from the lab's mirror and carried elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from provision.lab import observe
from tests.lab.conftest import ENVIRONMENT, PREFIX, ROOT, LabUnderTest, changed, made, playbook, provision

BUILT = "node_access,host_names,job_user,ssh_trust,base_packages,time_sync,data_disk,miniconda,conda_env"
RECORD = f"{PREFIX}/.clusterwright/record.json"


@pytest.fixture(scope="module")
def lone_lab(mirror: None) -> Iterator[LabUnderTest]:
    yield from made("bun1", "10.77.249.0/24", 1)


@pytest.fixture(scope="module")
def bundle(lone_lab: LabUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made while the lab's mirror answers, as the internet does for others; then copied to another disk."""
    folder = tmp_path_factory.mktemp("here") / "bundle"
    words = ("bundle", "create", str(folder), "-i", str(lone_lab.inventory), "--kind", "cpu", "--json")
    planned = json.loads(provision(*words, "--check").stdout)
    assert not folder.exists()
    told = json.loads(provision(*words).stdout)
    assert sorted(told["fetched"]) == sorted(planned["fetched"])
    carried = tmp_path_factory.mktemp("elsewhere") / "bundle"
    shutil.copytree(folder, carried)
    shutil.rmtree(folder)
    assert provision("bundle", "verify", str(carried), "--digest", told["digest"]).returncode == 0
    return carried


def site_digest(lab: LabUnderTest) -> str:
    digest: str = json.loads(lab.out("te1", "cat /etc/clusterwright/environment.json"))["digest"]
    return digest


@contextmanager
def served(folder: Path, address: str) -> Iterator[dict[str, str]]:
    """What `provision bundle serve` says that the inventory has to hold, while it serves."""
    words = [sys.executable, "-m", "provision.cli", "bundle", "serve", str(folder), "--address", address]
    with subprocess.Popen(
        [*words, "--port", "0", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0


def digest_of(lab: LabUnderTest, node: str) -> str:
    digest: str = json.loads(lab.out(node, "cat /etc/clusterwright/environment.json"))["digest"]
    return digest


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_site_installs_from_a_bundle_alone_and_has_the_environment_of_its_locks(
    lone_lab: LabUnderTest, bundle: Path
) -> None:
    """The node has no route out, and the mirror is gone."""
    lab = lone_lab
    server = observe.observe(lab.lab.folder, lab.lab.bridge).server
    assert server is not None
    os.kill(server, signal.SIGKILL)
    assert lab.out("te1", "ip route show default; ip -6 route show default") == ""
    knock = f"timeout 5 bash -c '</dev/tcp/{lab.lab.gateway}/8080'"
    assert lab.run("te1", knock, check=False).returncode != 0
    site = lab.inventory / "group_vars" / "all" / "site.yml"

    with served(bundle, lab.lab.gateway) as variables:
        site.write_text(json.dumps({"lab_mirror": "http://mirror.invalid:8080", **variables}))
        playbook(lab)
        again = playbook(lab)

    assert set(changed(again).values()) == {0}, again.stdout
    locks = [bundle / "envs" / ENVIRONMENT / name for name in ("conda-linux-64.lock", "wheels-cpu.lock")]
    text = "".join(lock.read_text().rstrip() for lock in locks)
    assert json.loads(lab.out("te1", f"cat {RECORD}"))["built_from"] == sha256(text.encode()).hexdigest()
    sources = lab.out("te1", "cat /etc/apt/sources.list.d/clusterwright.sources")
    assert f"URIs: {variables['cluster_bundle_url']}/apt" in sources
    assert site_digest(lab)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_mirror_gives_the_same_environment(lone_lab: LabUnderTest, bundle: Path) -> None:
    lab = lone_lab
    from_bundle = site_digest(lab)
    (lab.inventory / "group_vars" / "all" / "site.yml").unlink()
    (lab.lab.folder / "secrets" / "environments.yml").unlink()  # the controller remembers nothing
    lab.reset()

    playbook(lab, "--tags", BUILT)

    assert site_digest(lab) == from_bundle
