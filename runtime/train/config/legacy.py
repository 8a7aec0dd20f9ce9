"""Other names of keys, and keys that are deprecated or gone: mapped to today's, or refused with a reason."""

from __future__ import annotations

import math
from typing import Any

from runtime.train.config.off import Note, drop_comments, drop_off
from runtime.train.config.problems import Problem

_BARE = (
    "prefetch_bucket_size",
    "param_persistence_threshold",
    "model_persistence_threshold",
    "max_live_parameters",
    "max_reuse_distance",
    "gather_16bit_weights_on_model_save",
    "module_granularity_threshold",
    "use_all_reduce_for_fetch_params",
    "allgather_sequential",
)
# Block ("" is the top), name as written, name in the schema.
RENAMED: dict[tuple[str, str], str] = {
    ("", "bfloat16"): "bf16",
    ("", "train_micro_batch_size"): "train_micro_batch_size_per_gpu",
    ("aio", "thread_count"): "intra_op_parallelism",
    (
        "zero_optimization",
        "stage3_gather_fp16_weights_on_model_save",
    ): "stage3_gather_16bit_weights_on_model_save",
    **{("zero_optimization", name): f"stage3_{name}" for name in _BARE},
}


_BLOCKS = (
    *("", "zero_optimization", "aio", "optimizer.params", "fp16", "bf16", "tensor_parallel"),
    "zero_optimization.offload_optimizer",
)


def modernise(values: dict[str, Any], note: Note, ignore: Note) -> list[Problem]:
    """Rewrites `values` in place to today's names, and removes what is off.

    Calls `note(path, text)` for each change, and `ignore(path, why)` for each key that is left out.
    """
    problems: list[Problem] = []
    drop_comments(values)
    _drop_nulls(values)
    _expand_zero_flag(values, note)
    if values.get("steps_per_print") == math.inf:  # accelerate's word for never
        del values["steps_per_print"]
    for path in _BLOCKS:
        block = _block(values, path)
        if block is not None:
            problems += _rename(block, path, note)
            problems += drop_off(block, path, ignore)
    zero = _block(values, "zero_optimization")
    if zero is not None:
        if zero.get("sub_group_size") == 0:
            del zero["sub_group_size"]
            note("zero_optimization.sub_group_size", "0: the default")
        problems += _expand_cpu_offload(zero, note)
        _drop_idle_offload(zero, ignore)
        _imply_optimizer_offload(zero, note)
    _settle_waiting_type(values, zero or {}, note)
    _fix_case(values)
    return problems


def dotted(path: str, name: str) -> str:
    """The path of a key within a block's path."""
    return f"{path}.{name}" if path else name


def _block(values: dict[str, Any], path: str) -> dict[str, Any] | None:
    found: Any = values
    for part in path.split(".") if path else ():
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _drop_nulls(block: dict[str, Any]) -> None:
    """null is how JSON leaves a key out."""
    for name in [name for name, value in block.items() if value is None]:
        del block[name]
    for value in block.values():
        if isinstance(value, dict):
            _drop_nulls(value)


def _rename(block: dict[str, Any], path: str, note: Note) -> list[Problem]:
    problems = []
    for (where, old), new in RENAMED.items():
        if where != path or old not in block:
            continue
        value = block.pop(old)
        if new in block:
            problems.append(
                Problem(where=dotted(path, old), found=f"{new} is there as well", fix=f"Keep {new} only.")
            )
        else:
            block[new] = value
            note(dotted(path, new), f"written as {old}")
    return problems


def _expand_zero_flag(values: dict[str, Any], note: Note) -> None:
    flag = values.get("zero_optimization")
    if isinstance(flag, bool):
        values["zero_optimization"] = {"stage": int(flag)}
        note("zero_optimization.stage", f"from the deprecated zero_optimization: {str(flag).lower()}")


def _expand_cpu_offload(zero: dict[str, Any], note: Note) -> list[Problem]:
    """cpu_offload and its kin say what offload_optimizer and offload_param say today."""
    problems = []
    pin = zero.pop("cpu_offload_use_pin_memory", None)
    for old, new in (
        ("cpu_offload", "offload_optimizer"),
        ("cpu_offload_param", "offload_param"),
        ("cpu_offload_params", "offload_param"),
    ):
        wanted = zero.pop(old, None)
        if wanted is None:
            continue
        if not isinstance(wanted, bool):
            problems.append(_not_flag(f"zero_optimization.{old}", wanted))
        elif wanted and new not in zero:
            zero[new] = {"device": "cpu", **({} if pin is None else {"pin_memory": pin})}
            note(f"zero_optimization.{new}.device", f"from the deprecated {old}")
    return problems


def _stage(zero: dict[str, Any]) -> object:
    """The stage as a number, if it is one; 0 where nothing is said, as in DeepSpeed."""
    stage = zero.get("stage", 0)
    if stage == "auto":
        return 0
    return int(stage) if isinstance(stage, str) and stage.isdecimal() else stage


def _drop_idle_offload(zero: dict[str, Any], ignore: Note) -> None:
    """What a stage does not shard is not offloaded either, in DeepSpeed without a word."""
    for name, least, why in (
        ("offload_param", 3, "stage {} keeps whole parameters on the device"),
        ("offload_optimizer", 1, "stage {} shards nothing that could be offloaded"),
    ):
        stage, block = _stage(zero), zero.get(name)
        if not isinstance(block, dict) or not isinstance(stage, int) or not 0 <= stage < least:
            continue
        if block.get("device", "none") in ("cpu", "nvme"):
            del zero[name]
            ignore(f"zero_optimization.{name}", why.format(stage))


def _settle_waiting_type(values: dict[str, Any], zero: dict[str, Any], note: Note) -> None:
    """Whole gradients (stages 0 and 1) wait in the type in which they travel: fp32 for one is so for both."""
    types = _block(values, "data_types") or {}
    travel = values.get("communication_data_type", "fp32")
    if types.get("grad_accum_dtype") == "fp32" and _stage(zero) in (0, 1) and travel in ("fp32", "auto"):
        del types["grad_accum_dtype"]
        values["communication_data_type"] = "fp32"
        note("communication_data_type", "from data_types.grad_accum_dtype: they travel as they wait")


def _imply_optimizer_offload(zero: dict[str, Any], note: Note) -> None:
    """FSDP2 updates a parameter where its shard lives: states follow parameters out of the device."""
    parameters = zero.get("offload_param")
    if not isinstance(parameters, dict) or "offload_optimizer" in zero:
        return
    if parameters.get("device") in ("cpu", "nvme"):
        shared = {
            name: parameters[name] for name in ("device", "nvme_path", "pin_memory") if name in parameters
        }
        zero["offload_optimizer"] = shared
        for name in shared:
            note(f"zero_optimization.offload_optimizer.{name}", "implied by offload_param")


def _not_flag(where: str, value: object) -> Problem:
    return Problem(where=where, found=f"{value!r} is not true or false", fix="Write true or false.")


_SPELLED = {name.lower(): name for name in ("Adam", "AdamW", "SGD", "Adagrad")}


def _fix_case(values: dict[str, Any]) -> None:
    """The peer compares optimizer names without case."""
    optimizer = values.get("optimizer")
    if isinstance(optimizer, dict) and isinstance(optimizer.get("type"), str):
        optimizer["type"] = _SPELLED.get(optimizer["type"].lower(), optimizer["type"])
