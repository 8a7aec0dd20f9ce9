"""Other names of keys, and keys that are deprecated or gone: mapped to today's, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
_BY_HAND = "Remove it; take an older DeepSpeed if the training depends on it."
REMOVED: dict[tuple[str, str], tuple[str, str]] = {
    ("", "amp"): ("Apex AMP is gone", "Use bf16 or fp16."),
    ("", "nebula"): ("Nebula checkpointing is gone", "Remove it; checkpoints are verified here."),
    ("", "compression_training"): ("the compression library is gone", _BY_HAND),
    ("", "quantize_training"): ("mixture of quantisation is gone", _BY_HAND),
    ("", "eigenvalue"): ("mixture of quantisation is gone", _BY_HAND),
    ("", "sparse_gradients"): ("sparse gradients are gone", "Remove it; embeddings are reduced dense."),
    ("", "sparse_attention"): ("sparse attention is gone", _BY_HAND),
    ("", "graph_harvesting"): ("graph harvesting is gone", "Remove it."),
    ("", "curriculum_learning"): ("the old curriculum is gone", _BY_HAND),
    ("", "progressive_layer_drop"): ("progressive layer dropping is gone", _BY_HAND),
    ("", "elasticity"): (
        "elastic training is gone",
        "Set train_batch_size and train_micro_batch_size_per_gpu; checkpoints load at any size.",
    ),
    ("zero_optimization", "mics_shard_size"): ("MiCS is gone", "Use zero_hpz_partition_size."),
    ("zero_optimization", "mics_hierarchical_params_gather"): ("MiCS is gone", "Remove it."),
    ("zero_optimization", "zeropp_loco_param"): ("LoCo-ZeRO++ is gone", "Remove it."),
    ("optimizer.params", "max_grad_norm"): ("clipping is not the optimizer's", "Use gradient_clipping."),
}
Note = Callable[[str, str], None]


def modernise(values: dict[str, Any], note: Note) -> list[Problem]:
    """Rewrites `values` in place to today's names; calls `note(path, text)` for each change."""
    problems: list[Problem] = []
    _drop_nulls(values)
    _expand_zero_flag(values, note)
    for path in ("", "zero_optimization", "aio", "optimizer.params"):
        block = _block(values, path)
        if block is not None:
            problems += _removed(block, path)
            problems += _rename(block, path, note)
    zero = _block(values, "zero_optimization")
    if zero is not None:
        problems += _expand_cpu_offload(zero, note)
        _imply_optimizer_offload(zero, note)
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


def _removed(block: dict[str, Any], path: str) -> list[Problem]:
    problems = []
    for (where, name), (found, fix) in REMOVED.items():
        if where == path and name in block:
            del block[name]
            problems.append(Problem(where=dotted(path, name), found=found, fix=fix))
    return problems


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
