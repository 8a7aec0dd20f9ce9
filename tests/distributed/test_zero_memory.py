"""What saves memory changes no number: offload, recomputation, a secondary partition, frozen weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import runtime
from runtime.comm.group import shutdown
from runtime.topology import Topology
from tests.distributed.conftest import Ranks
from tests.distributed.zero_job import SEED, History, Model, Samples, config_for, engine_loops, plain_loop

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def plain() -> History:
    return plain_loop()


def zero(stage: int, **settings: Any) -> dict[str, Any]:
    return config_for(stage, zero_optimization={"stage": stage, **settings})


CPU = {"device": "cpu", "pin_memory": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "stage 1, optimizer offloaded": zero(1, offload_optimizer=CPU),
    "stage 2, optimizer offloaded": zero(2, offload_optimizer=CPU),
    "stage 3, optimizer offloaded": zero(3, offload_optimizer=CPU),
    "stage 3, everything offloaded": zero(3, offload_optimizer=CPU, offload_param=CPU),
    "stage 3, recomputed": config_for(3, activation_checkpointing={"partition_activations": True}),
    "stage 2, recomputed from host memory": config_for(
        2, activation_checkpointing={"cpu_checkpointing": True}
    ),
    "stage 3, secondary partition of two": zero(3, zero_hpz_partition_size=2),
}


def test_losses_are_those_without(ranks: Ranks, plain: History) -> None:
    without = [config_for(stage) for stage in (1, 2, 3)]
    histories = ranks(engine_loops, 4, [*without, *VARIANTS.values()], timeout_seconds=300)[0]

    for (name, config), history in zip(VARIANTS.items(), histories[3:], strict=True):
        beside = histories[config["zero_optimization"]["stage"] - 1]
        assert history.losses == pytest.approx(beside.losses, rel=1e-6), name
        assert history.losses == pytest.approx(plain.losses, rel=1e-5), name


def count_activations(topology: Topology, configs: list[Mapping[str, Any]]) -> list[int]:
    """Bytes that autograd keeps between the forward and the backward of one micro-step."""
    group = runtime.init_distributed()
    kept = []
    for config in configs:
        torch.manual_seed(SEED)
        engine, *_ = runtime.initialize(model=Model(), training_data=Samples(), config=config)
        total = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        x, y = Samples()[0]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = engine(x[None], y[None])
        engine.backward(loss)
        kept.append(total)
    shutdown(group)
    return kept


def test_recomputed_blocks_keep_less(ranks: Ranks) -> None:
    configs = [config_for(3), config_for(3, activation_checkpointing={})]

    [[without, with_]] = ranks(count_activations, 1, configs, timeout_seconds=300)

    assert with_ < 0.6 * without


def train_a_part(topology: Topology) -> tuple[bool, bool, int, int]:
    """LoRA's shape: the embedding and the blocks frozen but for one layer's bias."""
    group = runtime.init_distributed()
    torch.manual_seed(SEED)
    model = Model()
    model.requires_grad_(False)
    layer = model.layers[1]
    assert isinstance(layer.second, nn.Linear)
    layer.second.bias.requires_grad_(True)
    engine, optimizer, *_ = runtime.initialize(
        model=model, training_data=Samples(), config=config_for(3, bf16={"enabled": True})
    )
    before = {name: p.full_tensor().clone() for name, p in model.named_parameters()}
    for _ in range(4):
        engine.train_batch()
    after = {name: p.full_tensor() for name, p in model.named_parameters()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    shutdown(group)
    trained = sum(len(g["params"]) for g in optimizer.param_groups)
    return changed == {"layers.1.second.bias"}, frozen == {torch.bfloat16}, trained, len(optimizer.state)


def test_frozen_weights_stay_and_cost_no_optimizer_state(ranks: Ranks) -> None:
    assert ranks(train_a_part, 2, timeout_seconds=300) == [(True, True, 1, 1)] * 2
