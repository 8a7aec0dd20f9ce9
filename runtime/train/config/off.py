"""What is written and changes nothing: comments, features that are off, settings of older versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from runtime.train.config.problems import Problem

Note = Callable[[str, str], None]
_BY_HAND = "Remove it; take an older DeepSpeed if the training depends on it."
_MOQ = ("mixture of quantisation is gone", _BY_HAND)
_MICS = "MiCS is gone"
# Block ("" is the top), name: what to say where the feature is on.
GONE: dict[tuple[str, str], tuple[str, str]] = {
    ("", "amp"): ("Apex AMP is gone", "Use bf16 or fp16."),
    ("", "nebula"): ("Nebula checkpointing is gone", "Remove it; checkpoints are verified here."),
    ("", "compression_training"): ("the compression library is gone", _BY_HAND),
    ("", "quantize_training"): _MOQ,
    ("", "eigenvalue"): _MOQ,
    ("", "sparse_gradients"): ("sparse gradients are gone", "Remove it; embeddings are reduced dense."),
    ("", "sparse_attention"): ("sparse attention is gone", _BY_HAND),
    ("", "graph_harvesting"): ("graph harvesting is gone", "Remove it."),
    ("", "curriculum_learning"): ("the old curriculum is gone", _BY_HAND),
    ("", "progressive_layer_drop"): ("progressive layer dropping is gone", _BY_HAND),
    ("", "elasticity"): (
        "elastic training is gone",
        "Set train_batch_size and train_micro_batch_size_per_gpu; checkpoints load at any size.",
    ),
    ("", "sequence_parallel_size"): ("sequence parallelism is not implemented here", "Write 1."),
    ("tensor_parallel", "autotp_size"): ("tensor parallelism is not implemented here", "Write 1."),
    ("zero_optimization", "mics_shard_size"): (_MICS, "Use zero_hpz_partition_size."),
    ("zero_optimization", "mics_hierarchical_params_gather"): (_MICS, "Remove it."),
    ("zero_optimization", "zeropp_loco_param"): ("LoCo-ZeRO++ is gone", "Remove it."),
    ("optimizer.params", "max_grad_norm"): ("clipping is not the optimizer's", "Use gradient_clipping."),
}
# Written by older versions or for other programs; nothing depends on them, in DeepSpeed 0.19.8 neither.
_BF16_SCALE = "bf16 needs no loss scale"
_APEX = "it is Apex's"
_PARTS = "it is a name of DeepSpeed's own objects, not a key"
_TRAINER = "it is accelerate's; its own plugin reads it"
NOBODYS: dict[tuple[str, str], str] = {
    **{
        ("bf16", name): _BF16_SCALE
        for name in (
            *("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale"),
            *("consecutive_hysteresis", "auto_cast"),
        )
    },
    **{
        ("bfloat16", name): _BF16_SCALE
        for name in ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale")
    },
    ("fp16", "opt_level"): _APEX,
    ("fp16", "fp16_scale_tolerance"): "it is no key of the loss scale",
    ("", "comms_config"): _PARTS,
    ("", "monitor_config"): _PARTS,
    ("", "zero3_init_flag"): _TRAINER,
    ("", "zero3_save_16bit_model"): _TRAINER,
    ("zero_optimization", "find_unused_parameters"): "parameters without a gradient are no error here",
    ("zero_optimization", "grad_hooks"): "gradients are reduced as they come",
    ("zero_optimization", "allgather_size"): "FSDP2 moves one transformer block at a time",
    ("optimizer.params", "set_grad_none"): "gradients are always dropped, not zeroed",
}
_COMMENTS = {"comment", "comments", "description", "note", "notes"}
# Where DeepSpeed reads the keys that it knows and looks at no other.
OPEN_BLOCKS = ("", "optimizer", "scheduler", "activation_checkpointing", "aio", "checkpoint", "compile")
_NOTHING: tuple[Any, ...] = (None, False, "auto", "", {}, [])


def drop_comments(block: dict[str, Any]) -> None:
    """Removes keys that are comments, at any depth: `_comment`, `//`, `#`, `$schema`, `comment`."""
    for name in [name for name in block if is_comment(name)]:
        del block[name]
    for value in block.values():
        if isinstance(value, dict):
            drop_comments(value)


def is_comment(name: str) -> bool:
    """Whether a key is one for people."""
    return name.startswith(("_", "//", "#", "$")) or name.lower() in _COMMENTS


def drop_off(block: dict[str, Any], path: str, ignore: Note) -> Iterator[Problem]:
    """Removes from a block what is gone or nobody's; yields a problem for each that is on."""
    for (where, name), (found, fix) in GONE.items():
        if where == path and name in block:
            value = block.pop(name)
            dotted = f"{path}.{name}" if path else name
            if is_on(name, value):
                yield Problem(where=dotted, found=found, fix=fix)
            else:
                ignore(dotted, "it is off")
    for (where, name), why in NOBODYS.items():
        if where == path and name in block:
            del block[name]
            ignore(f"{path}.{name}" if path else name, why)


def is_on(name: str, value: Any) -> bool:
    """Whether a feature is switched on by what was written for it."""
    if value in _NOTHING:
        return False
    if name in ("autotp_size", "sequence_parallel_size", "mics_shard_size", "max_grad_norm"):
        least = 0 if name == "max_grad_norm" else 1
        return not isinstance(value, int | float) or value > least
    if not isinstance(value, dict):
        return True
    if name == "compression_training":
        return _is_enabled_within(value)
    if name in ("sparse_attention", "zeropp_loco_param"):
        return True  # there is no `enabled` in them
    return value.get("enabled", False) not in _NOTHING


def _is_enabled_within(block: dict[str, Any]) -> bool:
    inner = [value for value in block.values() if isinstance(value, dict)]
    return block.get("enabled", False) not in _NOTHING or any(_is_enabled_within(one) for one in inner)
