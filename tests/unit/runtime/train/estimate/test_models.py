"""Parameters and activations of models, from their config.json and from a run on fake tensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from runtime.errors import BadInput
from runtime.train.estimate.hugging_face import read_model
from runtime.train.estimate.states import Model
from runtime.train.estimate.traced import Build, trace, trace_script
from tests.conftest import RecordRefusal
from tests.unit.runtime.train.estimate.families import GPT2, LLAMA, gpt2, llama

ROOT = Path(__file__).parents[5]
CASES = json.loads((ROOT / "tests" / "cases" / "estimate" / "models.json").read_text())


def described(tmp_path: Path, fields: dict[str, Any], seq_length: int = 128) -> Model:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    return read_model(path, seq_length)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_parameters_of_public_models_are_exact(case: dict[str, Any], tmp_path: Path) -> None:
    model = described(tmp_path, case["config"])

    assert model.parameters == case["parameters"]
    assert model.blocks * model.block + model.root == model.parameters


@pytest.mark.parametrize(("fields", "build"), [(LLAMA, llama), (GPT2, gpt2)], ids=["llama", "gpt2"])
@pytest.mark.parametrize("compute_bytes", [2, 4])
def test_formulas_agree_with_the_arithmetic_of_the_family(
    fields: dict[str, Any], build: Build, compute_bytes: int, tmp_path: Path
) -> None:
    by_formula = described(tmp_path, fields).activations[compute_bytes]
    by_run = trace("", build, 128).activations[compute_bytes]

    assert by_formula.block == pytest.approx(by_run.block, rel=0.1)
    assert by_formula.outside == pytest.approx(by_run.outside, rel=0.1)
    assert by_formula.block_input == by_run.block_input


def real_run(build: Build, seq_length: int) -> int:
    """Bytes that autograd keeps of real tensors, once for each storage; the largest twice."""
    model, inputs = build(micro_batch=1, seq_length=seq_length)
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(*inputs)
    assert loss.requires_grad
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    return sum(sizes) + max(sizes)


@pytest.mark.parametrize("build", [llama, gpt2])
def test_fake_tensors_keep_what_real_ones_keep(build: Build) -> None:
    model = trace("", build, 128)

    of = model.activations[4]
    assert model.blocks * of.block + of.outside == pytest.approx(real_run(build, 128), rel=0.02)


def test_frozen_parameters_are_counted_apart() -> None:
    def frozen(micro_batch: int, seq_length: int) -> tuple[nn.Module, tuple[torch.Tensor]]:
        model, inputs = llama(micro_batch, seq_length)
        model.requires_grad_(False)
        model.layers[1].o.weight.requires_grad_(True)
        return model, inputs

    model, whole = trace("", frozen, 64), trace("", llama, 64)

    assert model.trained == 256 * 256
    assert model.parameters == whole.parameters
    assert model.activations[2].outside < whole.activations[2].outside


def test_a_script_builds_the_model() -> None:
    model = trace_script(f"{ROOT / 'examples' / 'gpt' / 'sizes.py'}:gpt", 64)

    assert model.parameters == 366_432  # the tied output layer once
    assert model.blocks == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"model_type": "mamba"}', "model_type 'mamba'"),
        ('{"model_type": "gpt2", "n_embd": 4}', "no field 'vocab_size'"),
        ("[]", "it is no mapping"),
        ("{", "it cannot be read"),
    ],
)
def test_what_cannot_be_a_model_is_refused(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)

    with pytest.raises(BadInput) as caught:
        read_model(path, 128)

    assert caught.value.found.startswith(found)


NUMBERS = dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"), 8)


@pytest.mark.attack("file")
@pytest.mark.parametrize("heads", ["0", '"2"', "[1]", "1e400", "NaN", "-1", "[" * 100_000])
def test_a_forged_description_of_a_model_is_refused(
    heads: str, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    fields = json.dumps({"model_type": "llama", **NUMBERS})
    path = tmp_path / "config.json"
    path.write_text(f'{fields[:-1]}, "num_attention_heads": {heads}}}')

    with pytest.raises(BadInput) as refusal:
        read_model(path, 128)
    record_refusal(refusal.value)


@pytest.mark.attack("file")
def test_a_pipe_in_the_place_of_a_model_is_not_waited_for(
    tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    os.mkfifo(tmp_path / "config.json")

    with pytest.raises(BadInput, match="it is a pipe, not a file") as refusal:
        read_model(tmp_path / "config.json", 128)
    record_refusal(refusal.value)


def test_the_links_of_a_cache_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text(json.dumps({"model_type": "llama", **NUMBERS, "num_attention_heads": 2}))
    (tmp_path / "config.json").symlink_to("blob")

    assert read_model(tmp_path / "config.json", 128).blocks == 8


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1", "AttributeError: module 'script' has no attribute 'build'"),
        ("def build(micro_batch, seq_length): return 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_script_that_does_not_build_is_refused(source: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(source)

    with pytest.raises(BadInput) as caught:
        trace_script(f"{path}:build", 8)

    assert caught.value.found == found
