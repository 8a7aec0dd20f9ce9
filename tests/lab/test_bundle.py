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
    yield from made("bun1", "10.77.248.0/24", 2)


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
def test_a_site_installs_from_a_bundle_alone_and_has_the_same_environment(
    lone_lab: LabUnderTest, tmp_path: Path
) -> None:
    lab = lone_lab
    site = lab.inventory / "group_vars" / "all" / "site.yml"
    playbook(lab, "--tags", BUILT)
    from_mirror = digest_of(lab, "te1")

    # Made while the mirror answers, as the internet does for others.
    folder = tmp_path / "bundle"
    words = ("bundle", "create", str(folder), "-i", str(lab.inventory), "--kind", "cpu")
    planned = json.loads(provision(*words, "--check", "--json").stdout)
    assert not folder.exists()
    told = json.loads(provision(*words, "--json").stdout)
    assert sorted(told["fetched"]) == sorted(planned["fetched"])
    carried = tmp_path / "elsewhere" / "bundle"
    shutil.copytree(folder, carried)
    assert provision("bundle", "verify", str(carried), "--digest", told["digest"]).returncode == 0

    # From here on the nodes, blank again, have no other source: no mirror, and no route out.
    lab.reset()
    server = observe.observe(lab.lab.folder, lab.lab.bridge).server
    assert server is not None
    os.kill(server, signal.SIGKILL)
    assert lab.out_of_all("ip route show default; ip -6 route show default") == ["", ""]
    knock = f"timeout 5 bash -c '</dev/tcp/{lab.lab.gateway}/8080'"
    assert lab.run("te1", knock, check=False).returncode != 0
    with served(carried, lab.lab.gateway) as variables:
        site.write_text(json.dumps({"lab_mirror": "http://mirror.invalid:8080", **variables}))
        first = playbook(lab)
        again = playbook(lab)

    assert set(changed(again).values()) == {0}, again.stdout
    assert "mirror.invalid" not in first.stdout
    assert [digest_of(lab, node) for node in lab.nodes] == [from_mirror, from_mirror]
    locks = [carried / "envs" / ENVIRONMENT / name for name in ("conda-linux-64.lock", "wheels-cpu.lock")]
    text = "".join(lock.read_text().rstrip() for lock in locks)
    assert json.loads(lab.out("te1", f"cat {RECORD}"))["built_from"] == sha256(text.encode()).hexdigest()
    sources = lab.out("te1", "cat /etc/apt/sources.list.d/clusterwright.sources")
    assert f"URIs: {variables['cluster_bundle_url']}/apt" in sources
    assert told["digest"] in variables["cluster_bundle_url"]
