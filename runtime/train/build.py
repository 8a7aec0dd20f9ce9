"""From a model and a configuration to an engine, in the order that matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from runtime.comm.group import Group
from runtime.errors import BadInput
from runtime.train.config import Config
from runtime.train.data.sharded_loader import Collate, ShardedLoader, TokenLoader
from runtime.train.engine import Engine
from runtime.train.offload.start import optimizer_on_disk, return_freed_memory
from runtime.train.optim.elementwise import check_optimizer
from runtime.train.optim.lr_schedule import build_schedule
from runtime.train.optim.optimizer import (
    MakeOptimizer,
    Parameters,
    attach,
    build_optimizer,
    detach,
    name_groups,
    parameter_groups,
)
from runtime.train.optim.precision import compute_dtype, mixed_precision
from runtime.train.parallel.blocks import compile_blocks, find_blocks, recompute_blocks
from runtime.train.parallel.collectives import broadcast_from_first
from runtime.train.parallel.dims import Axis, ParallelDims, build_mesh, shard_axis
from runtime.train.parallel.shard import ShardPlan, plan_shards, shard
from runtime.train.state import LearningRates
from runtime.train.weights.deferred import fill, names_on_meta
from runtime.train.weights.files import Weights

AnyOptimizer = torch.optim.Optimizer | MakeOptimizer
MakeSchedule = Callable[[torch.optim.Optimizer], LearningRates]


def build_engine(
    model: nn.Module,
    config: Config,
    group: Group,
    *,
    optimizer: AnyOptimizer | None = None,
    model_parameters: Parameters | None = None,
    lr_scheduler: LearningRates | MakeSchedule | None = None,
    training_data: Dataset[Any] | None = None,
    collate_fn: Collate | None = None,
    blocks: Sequence[type[nn.Module]] | None = None,
    weights: Weights | None = None,
    kind: type[Engine] | None = None,
) -> Engine:
    """Shards the model in place and puts optimizer, schedule and data around it.

    Every rank ends up with rank 0's weights and buffers; parameters on the meta device get theirs, or those
    that they draw, once they are sharded.

    Args:
        blocks: classes of the modules that travel as one; found from the model where None, the whole model
            as one where empty.
    """
    on_disk = config.zero_optimization.offload_optimizer.device == "nvme"
    if on_disk:
        return_freed_memory()
    made = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
    named = detach(made, model) if made else name_groups(model, model_parameters)
    missing = names_on_meta(model)
    prepare(model, compute_dtype(config), group.device)
    dims = ParallelDims.of(group.topology)
    plan = _plan(config, group, dims)
    units = [] if blocks is not None and not blocks else find_blocks(model, blocks or ())
    if config.compile.enabled:
        compile_blocks(units, config.compile, group.device)
    recompute_blocks(units, config.activation_checkpointing, group.device)
    shard(model, units, plan)
    if missing or weights is not None:
        fill(model, missing, weights, plan.mesh, plan.home(group.device), dims.dp)
    chosen: torch.optim.Optimizer | None
    if on_disk:
        chosen = optimizer_on_disk(model, config, group, dims, optimizer, parameter_groups(model, named))
    else:
        chosen = made or _optimizer(config, optimizer, parameter_groups(model, named))
    if made:
        attach(made, model, named)
    if chosen is not None and not on_disk:
        check_optimizer(chosen, is_cut=shard_axis(plan.mesh).size > 1)
    return (kind or Engine)(
        module=model,
        optimizer=chosen,
        lr_scheduler=_schedule(config, lr_scheduler, chosen),
        training_dataloader=_loader(config, training_data, collate_fn, dims.dp),
        config=config,
        plan=plan,
        group=group,
        dims=dims,
        blocks=units,
        gather_now=not missing,  # what was built without weights is whole with the first forward, not before
    )


def prepare(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Moves the model to its device and rank 0's values: fp32 masters, frozen weights in the compute type.

    What is on the meta device stays there and gets its type only.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            wanted = torch.float32 if parameter.requires_grad else dtype
            parameter.data = parameter.data.to(parameter.device if parameter.is_meta else device, wanted)
    model._apply(lambda t: t if t.is_meta else t.to(device))  # type: ignore[no-untyped-call]
    tensors = [tensor.data for tensor in (*model.parameters(), *model.buffers())]
    broadcast_from_first([tensor for tensor in tensors if not tensor.is_meta])


def _plan(config: Config, group: Group, dims: ParallelDims) -> ShardPlan:
    zero = config.zero_optimization
    return plan_shards(
        zero.stage,
        build_mesh(zero.stage, dims.dp.size, group.device),
        precision=mixed_precision(config),
        hpz_size=zero.zero_hpz_partition_size,
        offload_to_cpu=zero.offload_param.device != "none" or zero.offload_optimizer.device != "none",
        pin_memory=group.device.type != "cpu" and zero.pins_host_memory,
    )


def _optimizer(
    config: Config, make: AnyOptimizer | None, groups: list[dict[str, Any]]
) -> torch.optim.Optimizer | None:
    if make is not None:
        assert not isinstance(make, torch.optim.Optimizer)
        return make(groups)
    return build_optimizer(config.optimizer, groups) if config.optimizer is not None else None


def _schedule(
    config: Config, given: LearningRates | MakeSchedule | None, optimizer: torch.optim.Optimizer | None
) -> LearningRates | None:
    if optimizer is None and (given is not None or config.scheduler is not None):
        raise BadInput(
            "schedule learning rates",
            found="a scheduler, and no optimizer",
            fix="Add an optimizer block, or pass optimizer=... to runtime.initialize.",
        )
    if optimizer is None:
        return None
    if given is not None:
        return given(optimizer) if callable(given) else given
    return build_schedule(config.scheduler, optimizer) if config.scheduler is not None else None


def _loader(
    config: Config, dataset: Dataset[Any] | None, collate: Collate | None, ranks: Axis
) -> ShardedLoader | None:
    if dataset is None:
        return None
    place: dict[str, Any] = {
        "rank": ranks.rank,
        "world_size": ranks.size,
        "seed": config.seed,
        "drop_last": config.dataloader_drop_last,
        "collate": collate,
    }
    tokens = config.data_efficiency.token_batches
    if tokens is not None:
        return TokenLoader(dataset, config=tokens, **place)
    return ShardedLoader(dataset, micro=config.train_micro_batch_size_per_gpu or 1, **place)
