"""The training API, `import runtime`: what a script that was written for DeepSpeed changes its import to."""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import BadInput
from runtime.topology import Topology, torchrun_names

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    from runtime.comm.group import Group
    from runtime.train.build import AnyOptimizer, MakeSchedule
    from runtime.train.data.sharded_loader import Collate, ShardedLoader
    from runtime.train.engine import Engine
    from runtime.train.optim.optimizer import Parameters
    from runtime.train.state import LearningRates
    from runtime.train.weights.files import Weights

ConfigSource = str | Path | Mapping[str, Any]
logger = logging.getLogger("runtime")


def initialize(
    args: Any = None,
    model: nn.Module | None = None,
    optimizer: AnyOptimizer | None = None,
    model_parameters: Parameters | None = None,
    training_data: Dataset[Any] | None = None,
    lr_scheduler: LearningRates | MakeSchedule | None = None,
    collate_fn: Collate | None = None,
    config: ConfigSource | None = None,
    *,
    blocks: Sequence[type[nn.Module]] | None = None,
    weights: Weights | None = None,
    kind: type[Engine] | None = None,
) -> tuple[Engine, torch.optim.Optimizer | None, ShardedLoader | None, LearningRates | None]:
    """Shards the model in place; returns engine, optimizer, data loader and learning-rate scheduler.

    Joins the job's process group if the script has not. Every rank ends up with rank 0's weights.

    Args:
        args: where `config` is None, its `deepspeed_config` is the configuration.
        optimizer: an optimizer over the model's parameters, or a callable that makes one from parameter
            groups; the configuration's where None. Without either the engine computes forwards only, as
            a reference or reward model does.
        model_parameters: parameters or parameter groups to train; all that need a gradient where None.
        training_data: a map-style dataset, sharded over the ranks in an order that does not depend on them.
        lr_scheduler: a scheduler, or a callable that makes one from the optimizer; the configuration's else.
        config: a path, a mapping, or JSON in base64.
        blocks: classes of the modules that travel as one; found from the model where None.
        weights: what fills the model once it is sharded: a safetensors file, a folder of them, or a callable
            that gives a tensor by its name (KeyError: it has none). Only rank 0 reads. Where None, a model
            that was built in `without_weights` draws its weights by its modules' `reset_parameters`.
        kind: a class derived from the engine's, of which it is made.

    Raises:
        ConfigError: the configuration cannot be used; says every reason.
        BadInput: model, optimizer or data do not fit together.
        GroupFailed: the other ranks did not come.
    """
    from runtime.train.build import build_engine
    from runtime.train.config import read_config

    if model is None:
        raise BadInput("initialize a training", found="no model", fix="Pass model=...")
    group = init_distributed()
    resolved = read_config(_source(args, config), _situation(group, model))
    if group.topology.is_first:
        for path, why in resolved.idle.items():
            logger.info("%s has no effect: %s", path, why)
        for path, why in resolved.ignored.items():
            logger.warning("%s has no effect: %s", path, why)
    engine = build_engine(
        model,
        resolved.config,
        group,
        optimizer=optimizer,
        model_parameters=model_parameters,
        lr_scheduler=lr_scheduler,
        training_data=training_data,
        collate_fn=collate_fn,
        blocks=blocks,
        weights=weights,
        kind=kind,
    )
    return engine, engine.optimizer, engine.training_dataloader, engine.lr_scheduler


def without_weights() -> AbstractContextManager[None]:
    """Within it, a model is built with parameters that take no memory, to be filled by `initialize`.

    Buffers are real. The model may be larger than the process's memory: no rank ever holds it whole.
    """
    from runtime.train.weights.deferred import without_weights as build_without

    return build_without()


def init_distributed(dist_backend: str | None = None, timeout_seconds: float = 600.0) -> Group:
    """Joins the job that the environment describes; without a launcher a process is a job of its own.

    Scripts read torchrun's variables themselves (LOCAL_RANK): where a launcher has other names for them, they
    are set, as DeepSpeed does.
    """
    from runtime.comm.group import initialize as join

    for name, value in torchrun_names(os.environ).items():
        os.environ.setdefault(name, value)
    return join(Topology.from_environment(os.environ), backend=dist_backend, timeout_seconds=timeout_seconds)


def add_config_arguments(parser: ArgumentParser) -> ArgumentParser:
    """Adds `--deepspeed` and `--deepspeed_config`, and `--local_rank`, which some launchers pass.

    What the script has defined itself stays as it is.
    """
    group = parser.add_argument_group("ZeRO", "configuration of the training runtime")
    options: dict[str, dict[str, Any]] = {
        "--deepspeed": {"action": "store_true", "help": "accepted; the runtime is always used"},
        "--deepspeed_config": {"metavar": "FILE", "help": "path of a ds_config.json"},
        "--local_rank": {"type": int, "default": -1, "help": "accepted; the environment decides"},
    }
    for option, settings in options.items():
        if option not in parser._option_string_actions:
            group.add_argument(option, **settings)
    return parser


def _source(args: Any, config: ConfigSource | None) -> ConfigSource:
    named = getattr(args, "deepspeed_config", None)
    if config is not None and named is not None:
        raise BadInput(
            "choose a configuration",
            found="both config=... and --deepspeed_config",
            fix="Give one of the two.",
        )
    chosen: ConfigSource | None = config if config is not None else named
    if chosen is None:
        raise BadInput(
            "choose a configuration",
            found="neither config=... nor --deepspeed_config",
            fix="Pass config='ds_config.json'.",
        )
    return chosen


def _situation(group: Group, model: nn.Module) -> Any:
    import torch

    from runtime.train.config import Situation

    hidden = getattr(getattr(model, "config", None), "hidden_size", None)
    return Situation(
        world_size=group.topology.world_size,
        hidden_size=hidden if isinstance(hidden, int) else None,
        bf16_supported=group.device.type == "cpu" or torch.cuda.is_bf16_supported(),
    )
