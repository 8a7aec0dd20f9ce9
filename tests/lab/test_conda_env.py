"""The role `conda_env` on real nodes: one digest everywhere, drift that is named, a disk that fills up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RecordRefusal
from tests.lab.conftest import MIRROR, PREFIX, ROOT, LabUnderTest, changed, playbook, provision, said_from

DIGEST = f"python3 /usr/local/lib/clusterwright/environment_digest.py --prefix {PREFIX}"
TAGS = ("--tags", "conda_env")


@pytest.fixture(scope="module")
def conda_lab(spare_lab: LabUnderTest) -> LabUnderTest:
    """Nodes with Miniconda and without an environment."""
    provision(*MIRROR, timeout_seconds=1200)
    spare_lab.reset()
    playbook(spare_lab, "--tags", "data_disk,miniconda")
    return spare_lab


@pytest.fixture(scope="module")
def built(conda_lab: LabUnderTest) -> LabUnderTest:
    playbook(conda_lab, *TAGS)
    return conda_lab


@pytest.fixture
def without_environment(conda_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """te1 without an environment; te2 as it is."""
    conda_lab.run("te1", f"rm -rf {PREFIX}")
    yield conda_lab
    conda_lab.run("te1", "rm -f /data/ballast")


def fill(lab: LabUnderTest, *, leave_mib: int) -> None:
    """Fills the data disk of te1."""
    free = int(lab.out("te1", "df --output=avail -BM /data | tail -1 | tr -d ' M'"))
    lab.run("te1", f"fallocate -l {free - leave_mib}M /data/ballast")


def report(lab: LabUnderTest, node: str, *words: str, status: int = 0) -> dict[str, Any]:
    finished = lab.run(node, " ".join([DIGEST, *words]), check=False)
    assert finished.returncode == status, finished.stdout + finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def test_all_nodes_tell_one_digest_and_the_environment_is_active_at_login(built: LabUnderTest) -> None:
    told = [json.loads(text) for text in built.out_of_all("cat /etc/clusterwright/environment.json")]
    active = "bash -lc 'echo $CONDA_PREFIX; python -c \"import torch; print(torch.__version__)\"'"

    assert told[0] == told[1]
    assert told[0]["packages"]["torch"] == "2.13.0+cpu"
    assert built.out_of_all(active) == [f"{PREFIX}\n2.13.0+cpu"] * 2


def test_it_is_the_digest_of_all_that_lies_there_and_using_it_does_not_change_it(built: LabUnderTest) -> None:
    told = json.loads(built.out("te1", "cat /etc/clusterwright/environment.json"))
    built.run("te1", f"{PREFIX}/bin/python -c 'import torch._dynamo, sympy, rich, typer, http.server'")

    found = report(built, "te1", "--verify", "--full")
    assert (found["digest"], found["differences"]) == (told["digest"], [])


def test_an_environment_is_not_taken_away_from_what_runs_in_it(built: LabUnderTest) -> None:
    built.run("te2", f"echo >{PREFIX}/lib/stray")
    start = f"systemd-run --quiet --unit=job {PREFIX}/bin/python -c 'import time; time.sleep(900)'"
    built.run("te2", start)
    before = built.out("te2", f"stat -c %i {PREFIX}")

    refused = playbook(built, *TAGS, check=False)

    said = " ".join(refused.stdout.split())
    job = built.out("te2", "systemctl show --value --property=MainPID job")
    assert refused.returncode != 0
    assert f"fatal: [te2]: FAILED! => changed: false msg: '{PREFIX} is not begun: processes run from" in said
    assert f"{job} ({PREFIX}/bin/python -c import time; time.sleep(900))" in said
    assert built.out("te2", f"stat -c %i {PREFIX}; ls {PREFIX}/lib/stray").split()[0] == before
    built.run("te2", f"systemctl stop job; rm {PREFIX}/lib/stray")


@pytest.mark.attack("node")
def test_a_node_that_changed_files_and_record_alike_gets_what_the_locks_gave(
    built: LabUnderTest, record_refusal: RecordRefusal
) -> None:
    before = report(built, "te2")
    built.run("te2", f"echo >{PREFIX}/lib/stray")
    built.run("te2", f"{DIGEST} --record --built-from {before['built_from']}")

    finished = playbook(built, *TAGS)

    said = " ".join(finished.stdout.split())
    assert "its files and its own record are not what these locks gave before" in said
    record_refusal(said_from("its files and its own record", finished))
    assert changed(finished)["te1"] == 0
    assert report(built, "te2", "--verify")["digest"] == before["digest"]
    assert built.out("te2", f"cat {PREFIX}.before-*/lib/stray") == ""
    built.run("te2", f"rm -r {PREFIX}.before-*")


# In the gate test_environment_bytecode plants it in a real environment.
@pytest.mark.long
@pytest.mark.attack("node")
def test_planted_bytecode_is_found_and_taken_away(built: LabUnderTest, record_refusal: RecordRefusal) -> None:
    folder = "lib/python3.11/site-packages/torch/__pycache__"
    version, other = (f"{PREFIX}/{folder}/{name}.cpython-311.pyc" for name in ("version", "torch_version"))
    built.run("te2", f"{PREFIX}/bin/python -c 'import torch'")
    built.run("te2", f"(head -c 16 {version}; tail -c +17 {other}) >/tmp/planted; mv /tmp/planted {version}")

    found = report(built, "te2", "--verify", "--full", status=1)
    checked = playbook(built, *TAGS, "--check")
    applied = playbook(built, *TAGS)

    assert found["differences"] == [f"changed {folder}/version.cpython-311.pyc"]
    said = [" ".join(finished.stdout.split()) for finished in (checked, applied)]
    assert all(f"all bytecode is taken away, since {found['differences'][0]}" in text for text in said)
    record_refusal(said_from("all bytecode is taken away", applied))
    assert built.run("te2", f"ls {version}", check=False).returncode != 0
    assert changed(playbook(built, *TAGS)) == {"te1": 0, "te2": 0}


# In the gate a file more is built anew (above); test_environment_digest has every kind of change.
@pytest.mark.long
def test_one_changed_byte_is_named_and_the_environment_is_built_anew(built: LabUnderTest) -> None:
    """A run that is cut off when it has arrived, and is not recorded, leaves no second copy."""
    path = "lib/python3.11/site-packages/torch/version.py"
    before = report(built, "te2")["digest"]
    built.run("te2", f"sed -i 's/2.13.0/2.13.1/' {PREFIX}/{path}")

    cut_off_when(built, "te2", f"grep -q unfinished {PREFIX}/.clusterwright/record.json")
    assert report(built, "te2")["unfinished"]
    finished = playbook(built, *TAGS)

    assert f"1 of its files differ from its record: changed {path}" in " ".join(finished.stdout.split())
    assert changed(finished)["te1"] == 0
    assert report(built, "te2", "--verify")["digest"] == before
    kept = built.out("te2", f"ls -d {PREFIX}.before-* {PREFIX}/../.clusterwright-torch; true").split()
    assert len(kept) == 1
    assert "2.13.1" in built.out("te2", f"cat {kept[0]}/{path}")


def cut_off_when(lab: LabUnderTest, node: str, condition: str) -> None:
    """Starts the role; once this holds on the node, power is cut there and at the controller."""
    command = Path(sys.executable).parent / "ansible-playbook"
    words = [command, "playbooks/site.yml", "-i", lab.inventory, *TAGS]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True) as run:
        while lab.run(node, condition, check=False).returncode:
            assert run.poll() is None, "what is waited for did not come"
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGKILL)
    lab.power_off(node)
    lab.power_on(node)


# What a build leaves beside the environment when it is cut off.
LISTED = f"""mkdir -p {PREFIX}/../.clusterwright-torch/build && cd {PREFIX}/../.clusterwright-torch
echo Made by Clusterwright, which removes it. >clusterwright && cd build
for name in {PREFIX}/conda-meta/*.json; do echo "http://m/$(basename "$name" .json).conda"; done >conda.txt
{PREFIX}/bin/python -m pip list --format=freeze >wheels.txt"""


# In the gate test_set_aside has what a person added, in every place, without an environment of gigabytes.
@pytest.mark.long
def test_what_a_person_put_into_an_unfinished_build_is_kept(built: LabUnderTest) -> None:
    """As a cut of power leaves te2, and somebody works there before site.yml runs again."""
    built.run("te2", f"""echo '{{"unfinished": true}}' >{PREFIX}/.clusterwright/record.json""")
    built.run("te2", LISTED)
    built.run("te2", f"mkdir {PREFIX}/results && echo 42 >{PREFIX}/results/loss")

    finished = playbook(built, *TAGS)

    kept = built.out("te2", f"ls -d {PREFIX}.before-*/results").removesuffix("/results")
    said = " ".join(finished.stdout.split())
    assert f"te2: what an interrupted build of ours left is kept as {kept}, since not all of it" in said
    assert "results/loss. Once nobody" in said
    assert built.out("te2", f"cat {kept}/results/loss; {kept}/bin/python -c 'print(1)'") == "42\n1"
    assert report(built, "te2", "--verify")["exists"]
    built.run("te2", f"rm -r {PREFIX}.before-*")


def test_too_little_space_is_said_before_anything_is_begun(without_environment: LabUnderTest) -> None:
    fill(without_environment, leave_mib=700)

    finished = playbook(without_environment, *TAGS, check=False)

    said = " ".join(finished.stdout.split())
    assert finished.returncode != 0
    assert "te1 has 0.7 GiB free at /data/miniconda3/envs; building torch needs 3 GiB" in said
    assert without_environment.out("te1", "ls -A /data/miniconda3/envs") == ""


def test_a_disk_that_fills_up_leaves_nothing_half_done_and_the_other_node_finishes(
    without_environment: LabUnderTest,
) -> None:
    fill(without_environment, leave_mib=500)

    finished = playbook(without_environment, *TAGS, "-e", '{"conda_env_space_gib": 0.1}', check=False)

    said = " ".join(finished.stdout.split())
    assert finished.returncode != 0
    assert "The environment torch is not built on te1" in said
    assert "The disk filled up" in said
    assert without_environment.out("te1", "ls -A /data/miniconda3/envs") == ""
    assert report(without_environment, "te2", "--verify")["exists"]
