"""The environment `llm`: site.yml ends with it, and what people train with works for the user of jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.conftest import JOB_USER, JOBS, LabUnderTest, changed, made, playbook, provision, use

# In the gate test_site converges nodes with `torch`, and unit tests hold what the locks of `llm` name.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]
PYTHON = "/data/miniconda3/envs/llm/bin/python"
STEP = """
import torch
import accelerate, datasets, peft, safetensors, tokenizers, torchao, transformers
from torch.utils.tensorboard import SummaryWriter
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

torch.manual_seed(0)
sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
model = AutoModelForCausalLM.from_config(Qwen2Config(vocab_size=64, num_key_value_heads=2, **sizes))
rows = datasets.Dataset.from_dict({"tokens": [[one % 64 for one in range(at, at + 16)] for at in range(8)]})
tokens = torch.tensor(rows["tokens"][:])

def trained(model, steps):
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses

whole = trained(model, 5)
adapted = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))
print(whole[0], whole[-1], trained(adapted, 2)[-1])
"""


@pytest.fixture(scope="module")
def site(lab_machine: None) -> Iterator[LabUnderTest]:
    provision("lab", "mirror", "--environment", "llm", timeout_seconds=1500)
    for lab in made("llm", "10.77.248.0/24", 2):
        use("llm", lab.lab)
        playbook(lab)
        yield lab


def test_a_model_of_random_weights_learns_as_the_user_of_jobs(site: LabUnderTest) -> None:
    for node in site.nodes:
        site.run(node, f"cat >{JOBS}/step.py <<'E'\n{STEP}\nE", user=JOB_USER)
        said = site.run(node, f"{PYTHON} {JOBS}/step.py 2>&1", user=JOB_USER, timeout_seconds=180).stdout

        first, last, adapted = map(float, said.splitlines()[-1].split())
        assert last < first
        assert adapted < first


def test_both_nodes_have_one_digest_and_a_second_run_changes_nothing(site: LabUnderTest) -> None:
    told = [json.loads(text) for text in site.out_of_all("cat /etc/clusterwright/environment.json")]

    assert told[0] == told[1]
    assert {"transformers", "peft", "datasets", "torch", "torchao"} <= set(told[0]["packages"])
    assert changed(playbook(site)) == dict.fromkeys(site.nodes, 0)
