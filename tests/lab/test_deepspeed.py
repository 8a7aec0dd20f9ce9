"""The environment `deepspeed`: the real `deepspeed` runs on all nodes, an image of its locks equals them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import JOB_USER, JOBS, Finished, LabUnderTest, made, playbook, provision, use

# Minutes of building and compiling; unit tests hold what the locks name and how sources are admitted.
pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]
PREFIX = "/data/miniconda3/envs/deepspeed"
TAG = "localhost/clusterwright/deepspeed:cpu"
CONTAINER = "clusterwright-deepspeed-cpu"
TRAIN = """
import deepspeed
import torch

deepspeed.init_distributed()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
config = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 1}}
config["optimizer"] = {"type": "Adam", "params": {"lr": 0.01, "torch_adam": True}}
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
rank = torch.distributed.get_rank()
features = torch.randn(4, 16, generator=torch.Generator().manual_seed(rank))
losses = []
for _ in range(5):
    loss = engine(features).square().mean()
    engine.backward(loss)
    engine.step()
    losses.append(loss.item())
total = torch.tensor([float(rank)])
torch.distributed.all_reduce(total)
print("proof", rank, int(total), losses[-1] < losses[0], flush=True)
"""
COMPILED = """
import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
weight = torch.nn.Parameter(torch.ones(8))
weight.grad = torch.ones(8)
DeepSpeedCPUAdam([weight], lr=0.5).step()
print(weight.max().item() < 1)
"""


@pytest.fixture(scope="module")
def site(lab_machine: None) -> Iterator[LabUnderTest]:
    provision("lab", "mirror", "--environment", "deepspeed", timeout_seconds=1500)
    for lab in made("env1", "10.77.251.0/24", 4):
        use("deepspeed", lab.lab)
        playbook(lab, timeout_seconds=1500)
        yield lab


def test_deepspeed_itself_trains_on_all_nodes_of_the_hostfile(site: LabUnderTest) -> None:
    for node in site.nodes:
        site.run(node, f"cat >{JOBS}/tiny.py <<'E'\n{TRAIN}\nE", user=JOB_USER)
    start = f"cd {JOBS} && {PREFIX}/bin/deepspeed --hostfile /etc/clusterwright/hostfile --master_addr"

    ended = site.run(
        "te1", f"{start} {site.address('te1')} tiny.py", user=JOB_USER, timeout_seconds=900, check=False
    )

    proofs = [line.partition("proof ")[2] for line in ended.stdout.splitlines() if "proof " in line]
    assert sorted(proofs) == [f"{rank} 6 True" for rank in range(4)], (
        ended.stdout[-3000:] + ended.stderr[-3000:]
    )
    assert ended.returncode == 0


def test_a_node_has_what_an_extension_of_deepspeed_needs_to_be_compiled(site: LabUnderTest) -> None:
    said = site.run("te1", f"{PREFIX}/bin/python -c '{COMPILED}'", user=JOB_USER, timeout_seconds=900)

    assert said.stdout.splitlines()[-1] == "True"
    built = site.out("te1", "find /home/trainer/.cache/torch_extensions -name cpu_adam.so | wc -l")
    assert built == "1"


@pytest.fixture
def podman(tmp_path: Path) -> Mapping[str, str]:
    """The variables under which podman runs here: crun refuses cgroups of both versions."""
    if shutil.which("podman") is None:
        said = "this machine lacks podman: apt-get install podman runc"
        (pytest.fail if os.environ.get("REQUIRE_LAB") == "1" else pytest.skip)(said)
    conf = tmp_path / "containers.conf"
    conf.write_text('[engine]\nruntime = "runc"\n' if shutil.which("runc") else "")
    return {**os.environ, "CONTAINERS_CONF": str(conf)}


def asked(podman: Mapping[str, str], *words: str) -> Finished:
    finished = subprocess.run(
        ["podman", *words], capture_output=True, text=True, timeout=300, check=False, env=podman
    )
    assert finished.returncode == 0, f"podman {words}\n{finished.stderr}"
    return finished


def test_an_image_of_the_same_locks_has_the_digest_of_the_nodes_though_its_sources_were_built_again(
    site: LabUnderTest, podman: Mapping[str, str], tmp_path: Path
) -> None:
    command = ("env", "image", "deepspeed", "--kind", "cpu", "-i", str(site.inventory))
    nodes = json.loads(site.out("te1", "cat /etc/clusterwright/environment.json"))["digest"]

    planned: dict[str, Any] = json.loads(provision(*command, "--check", "--json", env=podman).stdout)
    assert planned["nodes"] == nodes
    said = provision(*command, "--json", timeout_seconds=1800, env=podman).stdout
    image: dict[str, Any] = json.loads(said)

    assert image["digest"] == nodes
    assert (
        asked(podman, "ps", "--all", "--format", "{{.Names}}", "--filter", f"name={CONTAINER}").stdout == ""
    )
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    run = ("run", "--rm", "--network", "none", *limits, TAG)
    ran = asked(podman, *run, "python", "-c", "import deepspeed, torch; print(torch.ones(2).sum().item())")
    assert ran.stdout.splitlines()[-1] == "2.0"
    program = "/usr/local/lib/clusterwright/environment_digest.py"
    again = asked(podman, *run, "python", "-I", "-B", program, "--prefix", PREFIX, "--verify", "--full")
    assert json.loads(again.stdout)["digest"] == nodes


def test_a_build_that_fails_leaves_no_image_and_no_container(
    site: LabUnderTest, podman: Mapping[str, str]
) -> None:
    before = asked(podman, "images", "--all", "--quiet").stdout

    failed = provision(
        *("env", "image", "deepspeed", "--kind", "cpu", "-i", str(site.inventory)),
        *("--wheel-source", "http://127.0.0.1:1/simple"),
        timeout_seconds=900,
        check=False,
        env=podman,
    )

    assert failed.returncode != 0
    assert "in the step: wheels" in failed.stderr
    assert "Traceback" not in failed.stderr.partition("podman ended")[0]
    assert asked(podman, "images", "--all", "--quiet").stdout == before
    assert (
        asked(podman, "ps", "--all", "--format", "{{.Names}}", "--filter", f"name={CONTAINER}").stdout == ""
    )
