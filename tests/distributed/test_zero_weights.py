"""Models that are built without weights: filled from files or a callable, or drawn; never whole in memory."""

from __future__ import annotations

import json
import resource
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.errors import BadInput
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, Model, Samples, config_for, plain_loop

pytestmark = pytest.mark.distributed
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The format by hand, after its specification."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


class Counting(Model):
    """With a buffer that a file has, and one that it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("scale", torch.full((2,), 0.5), persistent=False)


def built_plainly() -> Counting:
    torch.manual_seed(SEED)
    return Counting()


def losses_of(config: dict[str, Any], weights: Any, steps: int) -> list[float]:
    with runtime.without_weights():
        model = Counting()
    assert all(p.is_meta for p in model.parameters())
    engine, *_ = runtime.initialize(model=model, training_data=Samples(), config=config, weights=weights)
    assert model.head.weight is model.embed.weight
    assert model.scale.tolist() == [0.5, 0.5]
    return [engine.train_batch().item() for _ in range(steps)]


def fill_in_every_way(topology: Topology, configs: list[dict[str, Any]], folder: str) -> list[list[float]]:
    group = runtime.init_distributed()
    state = built_plainly().state_dict() if topology.is_first else {}
    losses = []
    for config in configs:
        for weights in (f"{folder}/model.safetensors", f"{folder}/parts", state.__getitem__, None):
            torch.manual_seed(SEED if topology.is_first else 1000 + topology.rank)
            losses.append(losses_of(config, weights, steps=6))
    shutdown(group)
    return losses


def test_losses_are_those_of_a_plain_build_however_a_model_is_filled(ranks: Ranks, tmp_path: Path) -> None:
    whole = built_plainly().state_dict()
    del whole["head.weight"]  # tied: a file has one of the two names
    write_safetensors(tmp_path / "model.safetensors", whole)
    (tmp_path / "parts").mkdir()
    places = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(whole)}
    for file in set(places.values()):
        write_safetensors(tmp_path / "parts" / file, {n: t for n, t in whole.items() if places[n] == file})
    index = json.dumps({"weight_map": places})
    (tmp_path / "parts" / "model.safetensors.index.json").write_text(index)
    cpu = {"device": "cpu"}
    configs = [
        config_for(0),
        config_for(2),
        config_for(3),
        config_for(3, zero_optimization={"stage": 3, "offload_optimizer": cpu, "offload_param": cpu}),
    ]

    histories = ranks(fill_in_every_way, 2, configs, str(tmp_path), timeout_seconds=300)[0]

    for losses in histories:
        assert losses == pytest.approx(plain_loop().losses[:6], rel=1e-5)


class Frozen(nn.Module):
    """LoRA's shape: a base without weights, an adapter with its own, a buffer of the base in the file."""

    def __init__(self) -> None:
        super().__init__()
        with runtime.without_weights():
            self.base = nn.Linear(10, 7)
            self.norm = nn.BatchNorm1d(7)
        self.requires_grad_(False)
        self.adapter = nn.Linear(10, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.base(x)) + self.adapter(x)
        return out.square().mean()


def fill_a_base(topology: Topology, file: str) -> list[float]:
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    config = config_for(3, scheduler=None, bf16={"enabled": True})
    engine, *_ = runtime.initialize(model=Frozen(), config=config, weights=file)
    base, adapter = engine.base.weight.full_tensor().float(), engine.adapter.weight.full_tensor()
    shutdown(group)
    return [base.mean().item(), adapter.abs().sum().item(), float(engine.norm.num_batches_tracked)]


def test_a_frozen_base_is_filled_and_an_adapter_keeps_its_own(ranks: Ranks, tmp_path: Path) -> None:
    torch.manual_seed(SEED)
    adapter = Frozen().adapter.weight.abs().sum().item()
    stored = {
        "base.weight": torch.full((7, 10), 0.25, dtype=torch.bfloat16),
        "base.bias": torch.zeros(7, dtype=torch.bfloat16),
        "norm.weight": torch.ones(7),
        "norm.bias": torch.zeros(7),
        "norm.num_batches_tracked": torch.tensor(12),
    }
    write_safetensors(tmp_path / "base.safetensors", stored)

    answers = ranks(fill_a_base, 2, str(tmp_path / "base.safetensors"))

    assert answers == [[0.25, pytest.approx(adapter, rel=1e-6), 12.0]] * 2


class Bare(nn.Module):
    """A parameter that nobody draws."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x) * self.scale
        return out.mean()


def refusals(topology: Topology, files: list[str | None]) -> list[str]:
    group = runtime.init_distributed()
    found = []
    for weights in files:
        with runtime.without_weights():
            model = Bare()
        try:
            runtime.initialize(model=model, config=config_for(3, scheduler=None), weights=weights)
        except BadInput as e:
            found.append(e.found)
    shutdown(group)
    return found


def test_weights_that_do_not_fit_are_refused_on_every_rank(ranks: Ranks, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "short", {"inner.weight": torch.ones(4, 3), "inner.bias": torch.ones(4)})
    (tmp_path / "torn").write_bytes(b"\xff" * 7)
    (tmp_path / "empty").mkdir()
    files = [str(tmp_path / name) for name in ("short", "torn", "empty", "none")]

    answers = ranks(refusals, 2, [*files, None])

    assert answers[0] == answers[1]
    assert answers[0][0] == "scale is missing; inner.weight has shape (4, 3), not (4, 4)"
    assert answers[0][1].startswith("no whole safetensors file: its header's length does not fit its size")
    assert answers[0][2] == "no *.safetensors in the folder"
    assert "No such file" in answers[0][3]
    assert answers[0][4] == "the model (Bare) has no reset_parameters"


WIDTH, LAYERS = 1024, 48
MODEL_BYTES = 4 * LAYERS * WIDTH * WIDTH  # 201 MB in fp32


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x) / LAYERS
        return x.square().mean()


def _data_bytes() -> int:
    """Private memory of this process, what RLIMIT_DATA limits (proc(5))."""
    line = next(li for li in Path("/proc/self/status").read_text().splitlines() if li.startswith("VmData"))
    return int(line.split()[1]) * 1024


def fill_under_a_limit(topology: Topology, stage: int, weights: str | None, without: bool) -> float:
    """Builds a model with 0.8 of its size to spend, then trains a step without a limit; returns its loss."""
    group = runtime.init_distributed()
    config = {
        "train_batch_size": 4,
        "optimizer": {"type": "SGD", "params": {"lr": 1e-3}},
        "zero_optimization": {"stage": stage},
    }
    runtime.initialize(model=nn.Linear(2, 2), config=config)  # what is imported is not the model's
    before, (_, hard) = _data_bytes(), resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (before + int(0.8 * MODEL_BYTES), hard))
    torch.manual_seed(0)
    with runtime.without_weights() if without else nullcontext():
        model = Wide()
    engine, *_ = runtime.initialize(model=model, config=config, weights=weights)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    torch.manual_seed(1)
    loss = engine(torch.randn(2, WIDTH))
    engine.backward(loss)
    engine.step()
    shutdown(group)
    return float(loss)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_model_larger_than_its_process_is_filled(ranks: Ranks, tmp_path: Path, stage: int) -> None:
    torch.manual_seed(0)
    model = Wide()
    write_safetensors(tmp_path / "model.safetensors", dict(model.state_dict()))
    torch.manual_seed(1)
    expected = model(torch.randn(2, WIDTH)).item()

    for weights in (str(tmp_path / "model.safetensors"), None):
        losses = ranks(fill_under_a_limit, 2, stage, weights, True)
        assert losses == pytest.approx([expected] * 2, rel=1e-5)


def test_the_limit_is_one_that_a_plain_build_does_not_keep(ranks: Ranks) -> None:
    with pytest.raises(AssertionError, match="allocate memory"):
        ranks(fill_under_a_limit, 2, 3, None, False)
