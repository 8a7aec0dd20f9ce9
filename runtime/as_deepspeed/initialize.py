"""`deepspeed.initialize` and its kin, with DeepSpeed's arguments in their order."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist

import runtime.api
from runtime.as_deepspeed.engine import DeepSpeedEngine
from runtime.errors import BadInput
from runtime.topology import torchrun_names
from runtime.train.config import Resolved, Situation, read_config
from runtime.train.parallel.zero import Init as PlainInit

_DEFAULT_SECONDS = 600.0


def initialize(
    args: Any = None,
    model: Any = None,
    optimizer: Any = None,
    model_parameters: Any = None,
    training_data: Any = None,
    lr_scheduler: Any = None,
    distributed_port: int = 29500,
    mpu: Any = None,
    dist_init_required: bool | None = None,
    collate_fn: Any = None,
    config: Any = None,
    mesh_param: Any = None,
    config_params: Any = None,
) -> tuple[DeepSpeedEngine, Any, Any, Any]:
    """`runtime.initialize`; returns engine, optimizer, data loader and learning-rate scheduler.

    The launcher chooses the port, and the group is formed unless it is there.

    Raises:
        BadInput: `mpu` or `mesh_param` asks for more than data parallelism.
    """
    _refuse_parallel(mpu, mesh_param)
    chosen = config if config is not None else config_params
    engine, *rest = runtime.api.initialize(
        args=_without_config(args) if chosen is not None else args,
        model=model,
        optimizer=optimizer,
        model_parameters=model_parameters,
        training_data=training_data,
        lr_scheduler=lr_scheduler,
        collate_fn=collate_fn,
        config=chosen,
        kind=DeepSpeedEngine,
    )
    assert isinstance(engine, DeepSpeedEngine)
    return engine, rest[0], rest[1], rest[2]


def init_distributed(
    dist_backend: str | None = None,
    auto_mpi_discovery: bool = True,
    distributed_port: int = 29500,
    verbose: bool = True,
    timeout: timedelta | None = None,
    init_method: str | None = None,
    dist_init_required: bool | None = None,
    config: Any = None,
    rank: int = -1,
    world_size: int = -1,
) -> None:
    """Joins the job that the environment describes, unless its group is there.

    Raises:
        BadInput: an `init_method`; the launcher's variables say where ranks meet.
    """
    if dist.is_initialized() or dist_init_required is False:
        return
    if init_method not in (None, "env://"):
        raise BadInput(
            "form the process group",
            found=f"init_method={init_method!r}",
            fix="Leave it out: MASTER_ADDR and MASTER_PORT, which launchers set, say where ranks meet.",
        )
    seconds = timeout.total_seconds() if timeout is not None else _DEFAULT_SECONDS
    runtime.api.init_distributed(_backend(dist_backend), seconds)


def add_config_arguments(parser: ArgumentParser) -> ArgumentParser:
    """Adds `--deepspeed` and `--deepspeed_config`; see `runtime.add_config_arguments`."""
    return runtime.api.add_config_arguments(parser)


class Init(PlainInit):
    """See `runtime.train.parallel.zero.Init`. Joins the job first: scripts ask for their rank within it."""

    def __init__(self, module: Any = None, *values: Any, enabled: bool = True, **named: Any) -> None:
        super().__init__(module, *values, enabled=enabled, **named)
        if enabled:
            init_distributed()


def get_local_rank() -> int:
    """This rank among those of its node, as the launcher counts them."""
    return int(torchrun_names(os.environ).get("LOCAL_RANK", 0))


class DeepSpeedConfig:
    """A configuration read and checked, for a job of as many ranks as the group has (else one)."""

    def __init__(self, config: str | Mapping[str, Any], mpu: Any = None, mesh_device: Any = None) -> None:
        _refuse_parallel(mpu, mesh_device)
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        self._resolved: Resolved = read_config(config, Situation(world_size=ranks))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._resolved.config, name)


def _backend(wanted: str | None) -> str | None:
    """NCCL for GPUs brings Gloo for the CPU along here; others are as they are named."""
    return None if wanted in (None, "nccl") else wanted


def _without_config(args: Any) -> Any:
    """What names no configuration is left out; two are refused, as DeepSpeed does."""
    return None if getattr(args, "deepspeed_config", None) is None else args


def _refuse_parallel(mpu: Any, mesh_param: Any) -> None:
    for name in ("get_model_parallel_world_size", "get_tensor_model_parallel_world_size"):
        size = getattr(mpu, name, None)
        if callable(size) and size() > 1:
            raise BadInput(
                f"train with mpu of {size()} model-parallel ranks",
                found="tensor parallelism is not implemented here",
                fix="Leave mpu out; stage 3 shards the model.",
            )
    if mesh_param is not None and any(size > 1 for size in tuple(mesh_param)[1:]):
        raise BadInput(
            f"train on a mesh {tuple(mesh_param)}",
            found="sequence parallelism is not implemented here",
            fix="Leave mesh_param out.",
        )
