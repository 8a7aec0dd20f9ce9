"""What stands behind DeepSpeed's names beside the engine: loaders, schedules, optimizers, checkpointing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from runtime.errors import BadInput
from runtime.train import device, experts, logs, recompute
from runtime.train.checkpoint.whole import clone_tensors_for_torch_save
from runtime.train.config.training import Scheduler, WarmupDecayLR
from runtime.train.data.repeating import RepeatingLoader
from runtime.train.optim import schedules
from runtime.train.optim.adam import DeepSpeedCPUAdagrad, DeepSpeedCPUAdam, FusedAdam
from runtime.train.optim.lr_schedule import build_schedule
from runtime.train.parallel import zero
from runtime.train.parallel.whole import GatheredParameters


def test_a_loader_begins_anew_when_it_has_ended() -> None:
    loader = RepeatingLoader([1, 2])

    assert [next(loader) for _ in range(5)] == [1, 2, 1, 2, 1]
    assert iter(loader) is loader


def rates(schedule: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def adam() -> torch.optim.Optimizer:
    return torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1)


def test_a_schedule_that_a_script_makes_is_the_configuration_s() -> None:
    by_hand, configured = adam(), adam()
    params = {"total_num_steps": 8, "warmup_min_lr": 0.01, "warmup_max_lr": 0.2, "warmup_num_steps": 3}
    config: Scheduler = WarmupDecayLR.model_validate({"type": "WarmupDecayLR", "params": params})

    mine = schedules.WarmupDecayLR(by_hand, 8, 0.01, warmup_max_lr=0.2, warmup_num_steps=3)
    theirs = build_schedule(config, configured)

    assert rates(mine, by_hand, 10) == rates(theirs, configured, 10)


def test_a_schedule_goes_on_from_a_step() -> None:
    optimizer, other = adam(), adam()
    first = schedules.WarmupLR(optimizer, warmup_num_steps=4, warmup_max_lr=0.2)
    rates(first, optimizer, 3)

    second = schedules.WarmupLR(other, warmup_num_steps=4, warmup_max_lr=0.2, last_batch_iteration=2)

    assert rates(first, optimizer, 3) == rates(second, other, 3)


def test_a_parameter_that_a_schedule_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationError):
        schedules.WarmupLR(adam(), warmup_steps=3)


def test_each_schedule_that_is_named_is_there() -> None:
    assert all(getattr(schedules, name).__name__ == name for name in schedules.VALID_LR_SCHEDULES)


@pytest.mark.parametrize(
    ("kind", "named", "like"),
    [
        (FusedAdam, {"weight_decay": 0.1}, torch.optim.AdamW),
        (FusedAdam, {"weight_decay": 0.1, "adam_w_mode": False}, torch.optim.Adam),
        (DeepSpeedCPUAdam, {"weight_decay": 0.1}, torch.optim.AdamW),
        (DeepSpeedCPUAdam, {"weight_decay": 0.1, "adamw_mode": False}, torch.optim.Adam),
        (DeepSpeedCPUAdagrad, {"weight_decay": 0.1}, torch.optim.Adagrad),
    ],
)
def test_an_optimizer_steps_as_pytorch_s(kind: Any, named: dict[str, Any], like: Any) -> None:
    ours, theirs = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    mine, plain = kind([ours], lr=0.01, **named), like([theirs], lr=0.01, weight_decay=0.1)

    for gradient in (torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 0.5, 0.5])):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        plain.step()

    assert torch.allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("kind", [FusedAdam, DeepSpeedCPUAdam])
def test_amsgrad_is_refused_as_deepspeed_does(kind: Any) -> None:
    with pytest.raises(BadInput, match="amsgrad"):
        kind([nn.Parameter(torch.ones(1))], amsgrad=True)


def test_sixteen_bit_states_are_refused() -> None:
    with pytest.raises(BadInput, match="states stay in fp32"):
        DeepSpeedCPUAdam([nn.Parameter(torch.ones(1))], fp32_optimizer_states=False)


@pytest.mark.parametrize("in_host_memory", [False, True])
def test_what_is_checkpointed_is_computed_again_to_the_same_gradient(in_host_memory: bool) -> None:
    calls = []
    weight = torch.ones(2, requires_grad=True)

    def part(x: torch.Tensor, *, factor: float) -> torch.Tensor:
        calls.append(1)
        return (x * weight * factor).sin()

    recompute.configure(None, checkpoint_in_cpu=in_host_memory)
    recompute.checkpoint(part, torch.ones(2), factor=2.0).sum().backward()
    recompute.configure(None)

    assert len(calls) == 2
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 2 * torch.cos(torch.tensor(2.0)) * torch.ones(2))
    assert recompute.is_configured()


def test_without_gradients_nothing_is_computed_twice() -> None:
    calls = []
    with torch.no_grad():
        recompute.checkpoint(lambda x: calls.append(1) or x, torch.ones(1))

    assert calls == [1]


def test_the_device_is_named_on_a_cpu() -> None:
    ours = device.Accelerator("cpu")

    assert (ours.device_name(0), ours.current_device_name(), ours.communication_backend_name()) == (
        "cpu",
        "cpu",
        "gloo",
    )
    assert ours.on_accelerator(torch.ones(1))
    assert ours.memory_allocated() == 0
    assert ours.total_memory() > ours.available_memory() > 0
    assert ours.device() == torch.device("cpu")
    assert ours.is_synchronized_device()


def test_seeds_are_those_of_python_numpy_and_torch() -> None:
    import random

    import numpy

    def draw() -> tuple[float, float, float]:
        device.set_random_seed(5)
        return random.random(), float(numpy.random.rand()), float(torch.rand(1))

    assert draw() == draw()


def test_tensors_are_moved_wherever_they_are_nested() -> None:
    moved = device.move_to_device({"a": [torch.ones(1), 3], "b": (torch.ones(1),)}, "meta")

    assert moved["a"][0].is_meta
    assert moved["a"][1] == 3
    assert isinstance(moved["b"], tuple)


@pytest.mark.parametrize(
    ("low", "high", "fits"), [(None, None, True), ("99.0", None, False), (1.8, "1.9", False)]
)
def test_versions_of_torch_are_compared_as_numbers(low: Any, high: Any, fits: bool) -> None:
    assert device.is_torch_at_least(low, high) is fits


def test_a_rank_that_is_not_named_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="runtime"):
        logs.log_dist("of rank 1", ranks=[1])
        logs.log_dist("of rank 0", ranks=[0])
        logs.log_dist_once("once")
        logs.log_dist_once("once")
        logs.see_memory_usage("unforced")

    assert [record.message for record in caplog.records] == ["[Rank 0] of rank 0", "[Rank 0] once"]


def test_whole_parameters_are_as_they_are_on_one_rank() -> None:
    layer = nn.Linear(2, 2)

    with GatheredParameters(layer.parameters(), modifier_rank=0), torch.no_grad():
        layer.weight.fill_(3.0)

    assert layer.weight.eq(3).all()
    assert not zero.is_zero_param(layer.weight)


def test_leaf_modules_are_found_by_class_and_by_name() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))

    assert zero.set_z3_leaf_modules(model, [nn.ReLU, "Linear"]) == [model[0], model[1][0]]
    assert zero.get_z3_leaf_modules(model) == [model[0], model[1][0]]
    assert zero.unset_z3_leaf_modules(model, [nn.ReLU]) == [model[1][0]]
    with pytest.raises(BadInput, match="no module of"):
        zero.set_z3_leaf_modules(model, ["Conv2d"])


def test_a_model_is_built_on_a_device_and_in_a_type() -> None:
    with zero.OnDevice(torch.bfloat16, "meta"):
        layer = nn.Linear(2, 2)

    assert layer.weight.is_meta
    assert layer.weight.dtype is torch.bfloat16
    assert torch.get_default_dtype() is torch.float32


def test_a_copy_for_a_file_holds_no_buffer_around_it(tmp_path: Path) -> None:
    around = torch.zeros(1_000_000)
    state = {"a": around[:2], "b": [around[2:3], 4]}

    torch.save(clone_tensors_for_torch_save(state), tmp_path / "x.pt")

    assert (tmp_path / "x.pt").stat().st_size < 10_000


def test_no_parameter_is_of_some_ranks_only() -> None:
    groups = experts.split_params_into_different_moe_groups_for_optimizer({"params": []})

    assert groups == [{"params": []}]
    assert experts.has_moe_layers(nn.Linear(1, 1)) == (False, 0)
    assert not experts.is_moe_param(torch.ones(1))
