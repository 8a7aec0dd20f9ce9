"""The blocks `fp16`, `bf16`, `torch_autocast` and `data_types`."""

from __future__ import annotations

from typing import Any, Literal

from runtime.train.config.fields import Block, Whole, key

DataType = Literal["fp32", "fp16", "bf16"]
_MASTERS = "master weights stay in fp32 here"


class Fp16(Block):
    """Half precision with fp32 masters and a loss scale."""

    enabled: bool = key(False, "compute in fp16")
    loss_scale: float = key(0.0, "0 scales dynamically; another number is a fixed scale", ge=0)
    initial_scale_power: Whole = key(16, "the first scale is 2 to this power", ge=0, le=126)
    loss_scale_window: Whole = key(1000, "steps without overflow before the scale doubles", ge=1)
    hysteresis: Whole = key(2, "overflows before the scale is halved", ge=1)
    consecutive_hysteresis: bool = key(False, "a step without overflow refills the hysteresis")
    min_loss_scale: float = key(1.0, "the scale never falls below", gt=0)
    auto_cast: bool = key(False, "cast inputs to fp16", idle="floating inputs are always cast")
    fp16_master_weights_and_grads: bool = key(False, "no fp32 masters", only=_MASTERS)


class Bf16(Block):
    """bfloat16 with fp32 masters; needs no loss scale."""

    enabled: bool = key(False, "compute in bf16")
    check_grad_overflow: bool = key(True, "skip a step whose gradients are not finite")
    immediate_grad_update: bool = key(
        False, "update during backward", idle="gradients accumulate as they come"
    )
    bf16_master_weights_and_grads: bool = key(False, "no fp32 masters", only=_MASTERS)
    bf16_optimizer_states: bool = key(False, "moments in bf16", only="optimizer states stay in fp32 here")


class TorchAutocast(Block):
    """torch.autocast around the forward."""

    enabled: bool = key(False, "use torch.autocast", only="use bf16 or fp16, which also halve the traffic")
    dtype: str | None = key(None, "autocast's type", idle="torch_autocast is not implemented")
    lower_precision_safe_modules: list[str] | None = key(
        None, "modules it covers", idle="torch_autocast is not implemented"
    )


class DataTypes(Block):
    """Types of what is not a parameter."""

    grad_accum_dtype: DataType | None = key(
        None,
        "type in which gradient shards wait for their step's other micro-steps; if left out, in stage 2 the "
        "compute type, as ZeRO defines it, in stage 3 fp32; whole gradients (stages 0, 1) as they travel",
    )
    param_dtype: DataType | None = key(None, "type of parameters", only="say it with fp16 or bf16")
    buffer_dtype: DataType | None = key(None, "type of buffers", only="buffers keep the type they have")
    keep_in_fp32_modules: Any = key(
        None, "modules kept in fp32", only="there are no exceptions by module here"
    )
