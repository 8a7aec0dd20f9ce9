"""Combinations of keys that are each right and make no sense together."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.train.config.problems import Problem
from runtime.train.config.schema import Config
from runtime.train.config.training import Adam, OneCycle, WarmupCosineLR, WarmupDecayLR


def contradictions(config: Config) -> list[Problem]:
    """Every contradiction within a valid configuration."""
    return [*_precision(config), *_nvme(config), *_stage(config), *_schedule(config), *_data(config)]


def without_effect(config: Config) -> Iterator[tuple[str, str]]:
    """Settings that other settings leave without effect: dotted path, and why."""
    zero = config.zero_optimization
    if zero.zero_hpz_partition_size > 1 and zero.stage != 3:
        yield "zero_optimization.zero_hpz_partition_size", f"stage {zero.stage} keeps whole parameters anyway"
    if isinstance(config.scheduler, WarmupDecayLR | WarmupCosineLR):
        params = config.scheduler.params
        if params.total_num_steps is not None and params.total_num_steps < params.warmup_num_steps:
            yield (
                "scheduler.params.total_num_steps",
                f"{params.total_num_steps} steps end before the {params.warmup_num_steps} of warm-up",
            )


def _data(config: Config) -> Iterator[Problem]:
    tokens = config.data_efficiency.token_batches
    where = "data_efficiency.data_sampling.dynamic_batching"
    if tokens is None:
        return
    if tokens.max_tokens is None:
        yield Problem(
            where=f"{where}.max_tokens",
            found="it is missing, and batches are filled by tokens",
            fix="Write how many tokens a rank's micro-batch may have.",
        )
    if tokens.max_batch_size is not None and tokens.max_batch_size < tokens.min_batch_size:
        yield Problem(
            where=f"{where}.max_batch_size",
            found=f"{tokens.max_batch_size}, less than min_batch_size {tokens.min_batch_size}",
            fix="Write a larger one, or leave it out.",
        )


def _precision(config: Config) -> Iterator[Problem]:
    if config.fp16.enabled and config.bf16.enabled:
        yield Problem(where="fp16, bf16", found="both are enabled", fix="Keep one; bf16 needs no loss scale.")
    waiting = config.data_types.grad_accum_dtype
    if waiting not in (None, "fp32", config.compute_type):
        yield Problem(
            where="data_types.grad_accum_dtype",
            found=f"{waiting}, while gradients are computed in {config.compute_type}",
            fix="Write fp32 or the compute type, or leave it out.",
        )
    if waiting is not None and config.zero_optimization.stage < 2:
        yield Problem(
            where="data_types.grad_accum_dtype",
            found=f"stage {config.zero_optimization.stage} keeps whole gradients, in the type they travel in",
            fix="Say it with communication_data_type, or leave it out.",
        )
    if config.communication_data_type == "fp16" and not config.fp16.enabled:
        yield Problem(
            where="communication_data_type",
            found="fp16 without fp16.enabled would overflow without a loss scale",
            fix="Write bf16 or fp32.",
        )


def _nvme(config: Config) -> Iterator[Problem]:
    zero = config.zero_optimization
    parameters, states = zero.offload_param, zero.offload_optimizer
    if states.device == "nvme" and not states.nvme_path:
        yield Problem(
            where="zero_optimization.offload_optimizer.nvme_path",
            found="it is missing, and device is nvme",
            fix="Write the path of a folder on each node's local disk.",
        )
    if parameters.device == "nvme" and states.device != "nvme":
        yield Problem(
            where="zero_optimization.offload_param.device",
            found="nvme, while the optimizer's states are not there; a parameter's master is the parameter",
            fix="Write nvme for offload_optimizer too, or leave that block out.",
        )
    if parameters.nvme_path and states.nvme_path and parameters.nvme_path != states.nvme_path:
        yield Problem(
            where="zero_optimization.offload_param.nvme_path",
            found="another folder than offload_optimizer's",
            fix="Write one folder for both.",
        )
    chosen = config.optimizer
    if states.device == "nvme" and isinstance(chosen, Adam) and not chosen.params.bias_correction:
        yield Problem(
            where="optimizer.params.bias_correction",
            found="false, while states are on nvme, where Adam always corrects",
            fix="Write device cpu, or leave it out.",
        )
    if states.device == "nvme" and config.optimizer is not None and not isinstance(config.optimizer, Adam):
        yield Problem(
            where="zero_optimization.offload_optimizer.device",
            found=f"nvme with {config.optimizer.type}; only Adam and AdamW are updated from files",
            fix="Write AdamW, or device cpu.",
        )


def _stage(config: Config) -> Iterator[Problem]:
    zero = config.zero_optimization
    if config.gradient_allreduce_op == "sum" and zero.stage == 3:
        yield Problem(
            where="gradient_allreduce_op",
            found="sum is not supported with stage 3, by the peer neither",
            fix="Write mean and scale the learning rate.",
        )


def _schedule(config: Config) -> Iterator[Problem]:
    if config.scheduler is None:
        return
    other = config.optimizer is not None and not isinstance(config.optimizer, Adam)
    if other and isinstance(config.scheduler, OneCycle) and config.scheduler.params.cycle_momentum:
        yield Problem(
            where="scheduler.params.cycle_momentum",
            found="the optimizer has no betas to cycle",
            fix="Write cycle_momentum false.",
        )
