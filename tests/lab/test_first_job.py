"""The first ZeRO job: a small GPT on real text over all nodes, equal to one process at every step."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.lab.conftest import LabUnderTest
from tests.lab.jobs import smoke

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt"
FOLDER = "/data/jobs/first"
PYTHON = "/data/miniconda3/envs/llm/bin/python"


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
            node, f"rm -rf {FOLDER} && mkdir -p {FOLDER} && echo {packed()} | base64 -d | tar -xzC {FOLDER}"
        )
    first = converged_lab.nodes[0]
    proven = smoke(converged_lab, "--max-bytes", "65536")
    assert proven.returncode == 0, proven.printed
    converged_lab.run(first, f"cd {FOLDER} && {PYTHON} plain.py --metrics plain.jsonl", timeout_seconds=120)
    return converged_lab


def test_a_zero3_job_over_all_nodes_equals_plain_pytorch_at_every_step(ready: LabUnderTest) -> None:
    first = ready.nodes[0]

    ready.run(
        first,
        f"cd {FOLDER} && zerorun train.py --deepspeed_config ds_config.json --metrics four.jsonl",
        timeout_seconds=180,
    )
    compared = ready.run(first, f"cd {FOLDER} && {PYTHON} metrics.py four.jsonl plain.jsonl --tolerance 1e-4")

    assert compared.stdout.startswith("green: 25 steps"), compared.stdout


def test_the_same_job_in_bf16_learns(ready: LabUnderTest) -> None:
    first = ready.nodes[0]

    ready.run(
        first,
        f"cd {FOLDER} && zerorun train.py --deepspeed_config ds_config_bf16.json --metrics bf16.jsonl",
        timeout_seconds=180,
    )
    losses = [json.loads(line)["loss"] for line in ready.out(first, f"cat {FOLDER}/bf16.jsonl").splitlines()]

    assert len(losses) == 25
    assert losses[-1] < losses[0] - 1.0


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
