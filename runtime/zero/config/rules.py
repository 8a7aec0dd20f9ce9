"""Combinations of keys that are each right and make no sense together."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.zero.config.problems import Problem
from runtime.zero.config.schema import Config
from runtime.zero.config.training import Adam, OneCycle, WarmupCosineLR, WarmupDecayLR


def contradictions(config: Config) -> list[Problem]:
    """Every contradiction within a valid configuration."""
    return [*_precision(config), *_offload(config), *_stage(config), *_schedule(config)]


def _precision(config: Config) -> Iterator[Problem]:
    if config.fp16.enabled and config.bf16.enabled:
        yield Problem(where="fp16, bf16", found="both are enabled", fix="Keep one; bf16 needs no loss scale.")
    if config.communication_data_type == "fp16" and not config.fp16.enabled:
        yield Problem(
            where="communication_data_type",
            found="fp16 without fp16.enabled would overflow without a loss scale",
            fix="Write bf16 or fp32.",
        )


def _offload(config: Config) -> Iterator[Problem]:
    zero = config.zero_optimization
    if zero.offload_param.device != "none" and zero.stage != 3:
        yield Problem(
            where="zero_optimization.offload_param",
            found=f"stage {zero.stage} keeps whole parameters on the device",
            fix="Write stage 3, or offload the optimizer only.",
        )
    if zero.offload_optimizer.device != "none" and zero.stage == 0:
        yield Problem(
            where="zero_optimization.offload_optimizer",
            found="stage 0 shards nothing that could be offloaded",
            fix="Write stage 1, 2 or 3.",
        )
    for name, offload in (
        ("offload_optimizer", zero.offload_optimizer),
        ("offload_param", zero.offload_param),
    ):
        if offload.device == "nvme":
            yield Problem(
                where=f"zero_optimization.{name}.device",
                found="offload to nvme is not implemented yet",
                fix='Write "cpu": it takes 16 bytes of host memory a parameter, divided by the ranks.',
            )


def _stage(config: Config) -> Iterator[Problem]:
    zero = config.zero_optimization
    if zero.zero_hpz_partition_size > 1 and zero.stage != 3:
        yield Problem(
            where="zero_optimization.zero_hpz_partition_size",
            found=f"stage {zero.stage} keeps whole parameters anyway",
            fix="Write stage 3, or leave it out.",
        )
    if config.gradient_allreduce_op == "sum" and zero.stage == 3:
        yield Problem(
            where="gradient_allreduce_op",
            found="sum is not supported with stage 3, by the peer neither",
            fix="Write mean and scale the learning rate.",
        )


def _schedule(config: Config) -> Iterator[Problem]:
    if config.scheduler is None:
        return
    if isinstance(config.scheduler, WarmupDecayLR | WarmupCosineLR):
        params = config.scheduler.params
        if params.total_num_steps < params.warmup_num_steps:
            yield Problem(
                where="scheduler.params.total_num_steps",
                found=f"{params.total_num_steps} steps end before the {params.warmup_num_steps} of warm-up",
                fix="Warm up for fewer steps (a tenth is common), or train longer.",
            )
    other = config.optimizer is not None and not isinstance(config.optimizer, Adam)
    if other and isinstance(config.scheduler, OneCycle) and config.scheduler.params.cycle_momentum:
        yield Problem(
            where="scheduler.params.cycle_momentum",
            found="the optimizer has no betas to cycle",
            fix="Write cycle_momentum false.",
        )
