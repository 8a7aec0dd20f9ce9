"""The environment `deepspeed`: site.yml ends with it, and the real `deepspeed` runs on all nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import JOB_USER, JOBS, LabUnderTest, made, playbook, provision, use

# Minutes of building and compiling; unit tests hold what the locks name and how sources are admitted.
pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]
PREFIX = "/data/miniconda3/envs/deepspeed"
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
