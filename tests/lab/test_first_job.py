"""The first ZeRO job: a small GPT on real text over all nodes, equal to one process at every step."""

from __future__ import annotations

import base64
import io
import json
import shlex
import tarfile
from pathlib import Path

import pytest

from tests.lab.conftest import JOB_USER, LabUnderTest, as_first_proven
from tests.lab.jobs import nothing_left, start, wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt"
FOLDER = "/data/jobs/trainer/first"
PYTHON = "/data/miniconda3/envs/torch/bin/python"


def packed() -> str:
    """The example as one word of a shell command."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(EXAMPLE.glob("*.*")):
            archive.add(path, arcname=path.name)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def ready(converged_lab: LabUnderTest) -> LabUnderTest:
    """The lab with the example on every node and the losses of plain PyTorch on the first."""
    for node in converged_lab.nodes:
        converged_lab.run(
            node,
            f"rm -rf {FOLDER} && mkdir -p {FOLDER} && echo {packed()} | base64 -d | tar -xzC {FOLDER} && "
            f"chown -R {JOB_USER}: {FOLDER}",
        )
    first = converged_lab.nodes[0]
    as_first_proven(converged_lab).run(
        first, f"cd {FOLDER} && {PYTHON} plain.py --metrics plain.jsonl", timeout_seconds=120
    )
    return converged_lab


# The gate has the job below that goes on, and on ranks here every stage, offload and type.
@pytest.mark.long
def test_a_zero3_job_over_all_nodes_equals_plain_pytorch_at_every_step(ready: LabUnderTest) -> None:
    first = ready.nodes[0]

    ready.run(
        first,
        f"cd {FOLDER} && zerorun train.py --deepspeed_config ds_config.json --metrics four.jsonl",
        timeout_seconds=180,
    )
    compared = ready.run(first, f"cd {FOLDER} && {PYTHON} metrics.py four.jsonl plain.jsonl --tolerance 1e-4")

    assert compared.stdout.startswith("green: 25 steps"), compared.stdout


def config_of(name: str, changes: dict[str, str]) -> str:
    """A configuration of the example, with words of it changed."""
    text = (EXAMPLE / f"{name}.json").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


IN_MEMORY = {
    device: f'"{device}": {{"device": "cpu", "pin_memory": true}}'
    for device in ("offload_optimizer", "offload_param")
}
ON_DISK = {
    old: f'"{device}": {{"device": "nvme", "nvme_path": "/data/jobs/trainer/states"}}'
    for device, old in IN_MEMORY.items()
}
JOBS = {
    "stage 1": config_of("ds_config", {'"stage": 3': '"stage": 1'}),
    "stage 2": config_of("ds_config", {'"stage": 3': '"stage": 2'}),
    "offload to cpu": config_of("ds_config_offload", {}),
    "offload to nvme": config_of("ds_config_offload", ON_DISK),
}


# Of four nodes the other tests tell: here a rank and its neighbour are enough.
PAIR = "--include te1@te2"


@pytest.mark.long
@pytest.mark.parametrize("name", JOBS)
def test_every_stage_and_offload_equals_plain_pytorch(ready: LabUnderTest, name: str) -> None:
    first = ready.nodes[0]
    ready.out_of_all(f"printf %s {shlex.quote(JOBS[name])} > {FOLDER}/changed.json")

    ready.run(
        first,
        f"cd {FOLDER} && zerorun {PAIR} train.py --deepspeed_config changed.json --steps 8 "
        "--metrics changed.jsonl",
        timeout_seconds=180,
    )
    compared = ready.run(
        first,
        f"cd {FOLDER} && head -8 plain.jsonl > eight.jsonl && "
        f"{PYTHON} metrics.py changed.jsonl eight.jsonl --tolerance 1e-4",
    )

    assert compared.stdout.startswith("green: 8 steps"), compared.stdout


def test_a_job_whose_rank_was_killed_goes_on_as_if_uninterrupted(ready: LabUnderTest) -> None:
    first, victim = ready.nodes[0], ready.nodes[2]
    job = f"cd {FOLDER} && zerorun --log-dir {FOLDER}/job train.py --deepspeed_config ds_config.json"
    job += " --checkpoints killed --save-every 5"
    start(ready, f"{job} --steps 5000 --metrics before.jsonl; echo status $?")
    wait_until(ready, first, f"[ -e {FOLDER}/killed/global_step10/manifest.json ]", 120)

    ready.run(victim, f"kill -KILL $(cat {FOLDER}/job/logs/rank2.pid)")
    wait_until(ready, first, "grep -q '^status' /tmp/out", 60)
    out = ready.out(first, "cat /tmp/out")
    assert out.endswith("status 137"), out
    assert f"rank 2 on {victim} was ended by SIGKILL" in out
    assert nothing_left(ready, 20)
    saved = int(ready.out(first, f"cat {FOLDER}/killed/latest").removeprefix("global_step"))
    last = saved + 5

    ready.run(first, f"{job} --steps {last} --metrics after.jsonl", timeout_seconds=180)
    ready.run(
        first, f"cd {FOLDER} && {PYTHON} plain.py --steps {last} --metrics longer.jsonl", timeout_seconds=120
    )
    ready.run(first, f"cd {FOLDER} && (head -{saved} before.jsonl; cat after.jsonl) > whole.jsonl")
    compared = ready.run(
        first, f"cd {FOLDER} && {PYTHON} metrics.py whole.jsonl longer.jsonl --tolerance 1e-4"
    )

    assert compared.stdout.startswith(f"green: {last} steps"), compared.stdout


@pytest.mark.long
def test_the_same_job_in_bf16_learns(ready: LabUnderTest) -> None:
    first = ready.nodes[0]

    ready.run(
        first,
        f"cd {FOLDER} && zerorun {PAIR} train.py --deepspeed_config ds_config_bf16.json --metrics bf16.jsonl",
        timeout_seconds=180,
    )
    losses = [json.loads(line)["loss"] for line in ready.out(first, f"cat {FOLDER}/bf16.jsonl").splitlines()]

    assert len(losses) == 25
    assert losses[-1] < losses[0] - 1.0


# In the gate tests/distributed/test_zero_checkpoint_disks.py takes a rank's folder.
@pytest.mark.long
def test_a_job_continues_after_a_node_lost_its_disk(ready: LabUnderTest) -> None:
    """The nodes share no disk: each keeps its own shards and a copy of its neighbour's."""
    first, lost = ready.nodes[0], ready.nodes[2]
    job = f"cd {FOLDER} && zerorun train.py --deepspeed_config ds_config.json --checkpoints checkpoints"

    ready.run(first, f"{job} --steps 12 --metrics before.jsonl", timeout_seconds=180)
    ready.run(lost, f"rm -r {FOLDER}/checkpoints")
    ready.run(first, f"{job} --steps 25 --metrics after.jsonl", timeout_seconds=180)
    ready.run(first, f"cd {FOLDER} && (head -10 before.jsonl; cat after.jsonl) > whole.jsonl")
    compared = ready.run(
        first, f"cd {FOLDER} && {PYTHON} metrics.py whole.jsonl plain.jsonl --tolerance 1e-4"
    )

    assert compared.stdout.startswith("green: 25 steps"), compared.stdout
