"""DeepSpeed's public layout: where each name's meaning lives here, or why it is not here and what is instead.

Only tables: nothing is imported. Names are those of DeepSpeed 0.19.8 that public scripts, transformers and
accelerate use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LIKE = "0.19.8"
ENVIRONMENT_FILE = ".deepspeed_env"  # variables that DeepSpeed's launcher hands on; zerorun has --env-file


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A name that can be imported and not be used: why, and the way here."""

    why: str
    instead: str
    is_class: bool = True


Answer = str | Absent
Names = Mapping[str, Answer]


def _absent(why: str, instead: str, *names: str, is_class: bool = True) -> dict[str, Answer]:
    return dict.fromkeys(names, Absent(why=why, instead=instead, is_class=is_class))


def _same(module: str, *names: str) -> dict[str, Answer]:
    return {name: f"{module}:{name}" for name in names}


_PIPELINE = (
    "pipeline parallelism is not implemented here",
    "Give the whole model to initialize; stage 3 shards it.",
)
_MOE = ("expert parallelism is not implemented here", "Use a plain mixture of experts; stage 3 shards it.")
_SEQUENCES = (
    "sequence parallelism is not implemented here",
    "Use activation checkpointing for long sequences.",
)
_KERNELS = ("DeepSpeed's own kernels are not here", "Use PyTorch's; they are as fast on today's cards.")
_INFERENCE = ("inference engines are not here", "Use the model itself, or the site's serving environment.")
_BY_ELEMENT = (
    "it is not implemented here",
    "Use AdamW, or pass an optimizer of your own that works by element.",
)
_PARTS = ("it is a part of DeepSpeed's own machinery", "Use what deepspeed.initialize returns.")

PIPE: Names = {
    **_absent(
        *_PIPELINE, "PipelineModule", "LayerSpec", "TiedLayerSpec", "PipelineEngine", "ProcessTopology"
    ),
    **_absent(
        *_PIPELINE, "PipeDataParallelTopology", "PipeModelDataParallelTopology", "PipelineParallelGrid"
    ),
}
MOE_LAYER: Names = _absent(*_MOE, "MoE", "Experts", "MOELayer", "TopKGate")
MOE_UTILS: Names = {
    **_same("runtime.train.experts", "has_moe_layers", "is_moe_param", "is_moe_param_group"),
    **_same("runtime.train.experts", "split_params_into_different_moe_groups_for_optimizer"),
}
ACCELERATOR: Names = _same("runtime.train.device", "get_accelerator")
CHECKPOINTING: Names = {
    **_same("runtime.train.recompute", "checkpoint", "configure", "is_configured", "reset", "set_num_layers"),
    **_same("runtime.train.recompute", "partition_activations_in_checkpoint"),
    "non_reentrant_checkpoint": "runtime.train.recompute:checkpoint",
    **_absent(
        "tensor parallelism is not implemented here",
        "Seed with torch.manual_seed; each rank computes whole layers.",
        *("get_cuda_rng_tracker", "model_parallel_cuda_manual_seed", "model_parallel_reconfigure_tp_seed"),
        is_class=False,
    ),
}
ZERO: Names = {
    "Init": "runtime.as_deepspeed.initialize:Init",
    **_same("runtime.train.parallel.whole", "GatheredParameters", "ZeroParamStatus"),
    **_same("runtime.train.parallel.zero", "ZeroParamType", "is_zero_param"),
    **_same("runtime.train.parallel.zero", "register_external_parameter", "unregister_external_parameter"),
    **_absent(
        "memory is estimated before a model is built",
        "python -m runtime estimate --model config.json --config ds_config.json",
        *("estimate_zero2_model_states_mem_needs_all_live", "estimate_zero2_model_states_mem_needs_all_cold"),
        *("estimate_zero3_model_states_mem_needs_all_live", "estimate_zero3_model_states_mem_needs_all_cold"),
        is_class=False,
    ),
    **_absent("tiled linear layers are not here", "Use torch.nn.Linear; stage 3 shards it.", "TiledLinear"),
    **_absent("tiled linear layers are not here", "Use torch.nn.Linear.", "TiledLinearReturnBias"),
}
LR_SCHEDULES: Names = _same(
    "runtime.train.optim.schedules",
    *("WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "OneCycle", "LRRangeTest", "VALID_LR_SCHEDULES"),
    *("LR_RANGE_TEST", "ONE_CYCLE", "WARMUP_LR", "WARMUP_DECAY_LR", "WARMUP_COSINE_LR"),
)
ENGINE: Names = {
    **_same("runtime.as_deepspeed.engine", "DeepSpeedEngine"),
    **_absent(*_PARTS, "DeepSpeedHybridEngine"),
}
CONFIG: Names = {
    **_same("runtime.as_deepspeed.initialize", "DeepSpeedConfig"),
    "DeepSpeedConfigError": "runtime.train.config:ConfigError",
}
REPEATING: Names = _same("runtime.train.data.repeating", "RepeatingLoader")
LOGGING: Names = _same("runtime.train.logs", "logger", "log_dist", "log_dist_once", "print_rank_0")
_DATA = "runtime.train.parallel.groups:get_data_parallel"
_OWN = {"group": "own_group", "world_size": "size_of_own", "rank": "rank_in_own"}
GROUPS: Names = {
    **{
        f"{start}{what}": f"{_DATA}_{what}"
        for start in ("_get_data_parallel_", "get_data_parallel_")
        for what in _OWN
    },
    **{f"_get_sequence_data_parallel_{what}": f"{_DATA}_{what}" for what in _OWN},
    **{
        f"_get_{axis}_parallel_{what}": f"runtime.train.parallel.groups:{name}"
        for axis in ("model", "sequence", "expert")
        for what, name in _OWN.items()
    },
    "_get_world_group": f"{_DATA}_group",
}
FULL: Names = _same(
    "runtime.train.parallel.whole",
    *("safe_get_full_fp32_param", "safe_get_full_grad", "safe_get_full_optimizer_state"),
    *("safe_set_full_fp32_param", "safe_set_full_grad", "safe_set_full_optimizer_state"),
    *("safe_get_local_fp32_param", "safe_get_local_grad", "safe_get_local_optimizer_state"),
    *("safe_set_local_fp32_param", "safe_set_local_grad", "safe_set_local_optimizer_state"),
)
LEAVES: Names = _same(
    "runtime.train.parallel.zero",
    *("set_z3_leaf_modules", "unset_z3_leaf_modules", "get_z3_leaf_modules", "z3_leaf_module"),
    *("set_z3_leaf_module",),
)
ON_DEVICE: Names = _same("runtime.train.parallel.zero", "OnDevice")
WHOLE: Names = _same(
    "runtime.train.checkpoint.whole",
    *("get_fp32_state_dict_from_zero_checkpoint", "convert_zero_checkpoint_to_fp32_state_dict"),
    *("load_state_dict_from_zero_checkpoint",),
)
UTILS: Names = {
    **LOGGING,
    **REPEATING,
    **FULL,
    **LEAVES,
    **ON_DEVICE,
    "instrument_w_nvtx": "runtime.train.logs:instrument_w_nvtx",
    "is_initialized": "torch.distributed:is_initialized",
}
RUNTIME_UTILS: Names = {
    **_same("runtime.train.logs", "see_memory_usage"),
    **_same("runtime.train.device", "set_random_seed", "empty_cache", "move_to_device"),
    "required_torch_version": "runtime.train.device:is_torch_at_least",
    "clip_grad_norm_": "torch.nn.utils:clip_grad_norm_",
    **_absent(*_PIPELINE, "partition_uniform", "partition_balanced", "PartitionedTensor", is_class=False),
}
ADAM: Names = _same("runtime.train.optim.adam", "FusedAdam", "DeepSpeedCPUAdam")
ADAGRAD: Names = _same("runtime.train.optim.adam", "DeepSpeedCPUAdagrad")
LAMB: Names = _absent(*_BY_ELEMENT, "FusedLamb")
LION: Names = _absent(*_BY_ELEMENT, "FusedLion", "DeepSpeedCPULion")
_TORCH = (
    *("all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "all_to_all"),
    *("all_to_all_single", "barrier", "batch_isend_irecv", "broadcast", "broadcast_object_list"),
    *("destroy_process_group", "gather", "get_backend", "get_global_rank", "get_rank", "get_world_size"),
    *("irecv", "is_available", "is_initialized", "isend", "monitored_barrier", "new_group", "P2POp", "recv"),
    *("reduce", "reduce_scatter", "reduce_scatter_tensor", "ReduceOp", "scatter", "send", "ProcessGroup"),
)
COMM: Names = {
    **_same("torch.distributed", *_TORCH),
    **_same("runtime.as_deepspeed.initialize", "init_distributed", "get_local_rank"),
    **_same("runtime.train.parallel.groups", "get_all_ranks_from_group"),
    "get_world_group": f"{_DATA}_group",
    "inference_all_reduce": "torch.distributed:all_reduce",
    "allgather_fn": "torch.distributed:all_gather_into_tensor",
    "reduce_scatter_fn": "torch.distributed:reduce_scatter_tensor",
    "initialize_mesh_device": "torch.distributed.device_mesh:init_device_mesh",
    **_absent(
        "collectives are not timed here",
        "python -m runtime smoke measures them.",
        "log_summary",
        is_class=False,
    ),
}
TOP: Names = {
    **_same("runtime.as_deepspeed.initialize", "initialize", "init_distributed", "add_config_arguments"),
    **ENGINE,
    **CONFIG,
    **ACCELERATOR,
    **ON_DEVICE,
    **_same("runtime.train.logs", "logger", "log_dist"),
    "dist": "torch.distributed:",
    "DeepSpeedOptimizer": "torch.optim:Optimizer",
    **{name: PIPE[name] for name in ("PipelineModule", "PipelineEngine")},
    **_absent(*_INFERENCE, "InferenceEngine", "DeepSpeedInferenceConfig"),
    **_absent(*_INFERENCE, "init_inference", "default_inference_config", is_class=False),
    **_absent(*_KERNELS, "DeepSpeedTransformerLayer", "DeepSpeedTransformerConfig"),
    **_absent(
        "tensor parallelism is not implemented here",
        "Shard the model with stage 3.",
        "tp_model_init",
        is_class=False,
    ),
}

# Of DeepSpeed's engine: what public scripts call, after the engine's own list of properties.
ENGINE_NAMES = frozenset(
    (
        *("module", "optimizer", "lr_scheduler", "training_dataloader", "config", "device", "local_rank"),
        *("global_rank", "world_size", "dp_world_size", "global_steps", "global_samples", "micro_steps"),
        *("skipped_steps", "loss_scale", "backward", "step", "forward", "train", "eval", "train_batch"),
        *("eval_batch", "zero_grad", "get_lr", "get_type", "get_mom", "set_lr", "get_global_grad_norm"),
        *("is_gradient_accumulation_boundary", "set_gradient_accumulation_boundary", "no_sync"),
        *("gradient_accumulation_steps", "train_batch_size", "train_micro_batch_size_per_gpu"),
        *("set_train_batch_size", "set_train_micro_batch_size", "zero_optimization", "scale"),
        *("zero_optimization_stage", "zero_offload_optimizer", "fp16_enabled", "bfloat16_enabled"),
        *("gradient_clipping", "steps_per_print", "wall_clock_breakdown", "get_data_types", "compile"),
        *("was_step_applied", "allreduce_gradients", "save_checkpoint", "load_checkpoint", "is_compiled"),
        *("save_16bit_model", "save_fp16_model", "module_state_dict", "load_module_state_dict", "destroy"),
        *("empty_partition_cache", "offload_states", "reload_states", "deepspeed_io", "set_dataloader"),
        *("monitor", "tput_timer", "checkpoint_engine", "optimizer_name", "scheduler_name"),
        *("get_batch_info", "get_sequence_parallel_group", "communication_data_type", "dynamic_loss_scale"),
        *("initial_dynamic_scale", "client_optimizer", "coalesce_grad_reduction", "data_parallel_group"),
        *("mpu", "update_optimizer_step", "zero_gather_16bit_weights_on_model_save"),
        *("_zero3_consolidated_16bit_state_dict", "get_data_parallel_rank", "get_model_parallel_rank"),
    )
)

MODULES: Mapping[str, Names] = {
    "": TOP,
    "accelerator": ACCELERATOR,
    "accelerator.real_accelerator": ACCELERATOR,
    "checkpoint": {},
    "checkpoint.utils": _same("runtime.train.checkpoint.whole", "clone_tensors_for_torch_save"),
    "checkpointing": CHECKPOINTING,
    "comm": COMM,
    "comm.comm": COMM,
    "git_version_info": {"version": "runtime.as_deepspeed.finder:VERSION"},
    "inference": {**_absent(*_INFERENCE, "InferenceEngine", "DeepSpeedInferenceConfig")},
    "launcher": {},
    "launcher.runner": {"DEEPSPEED_ENVIRONMENT_NAME": "runtime.as_deepspeed.names:ENVIRONMENT_FILE"},
    "moe": {},
    "moe.experts": MOE_LAYER,
    "moe.layer": MOE_LAYER,
    "moe.sharded_moe": MOE_LAYER,
    "moe.utils": MOE_UTILS,
    "monitor": {},
    "monitor.monitor": _absent(
        "there is no monitor here",
        "Write metrics in the script; the node's pages show the hardware.",
        "MonitorMaster",
    ),
    "ops": {},
    "ops.adagrad": ADAGRAD,
    "ops.adam": ADAM,
    "ops.adam.cpu_adam": ADAM,
    "ops.adam.fused_adam": ADAM,
    "ops.lamb": LAMB,
    "ops.lion": LION,
    "ops.transformer": _absent(*_KERNELS, "DeepSpeedTransformerLayer", "DeepSpeedTransformerConfig"),
    "pipe": PIPE,
    "profiling": {},
    "profiling.flops_profiler": {
        **_absent("FLOPs are not counted here", "Use torch.utils.flop_counter.", "FlopsProfiler"),
        **_absent(
            "FLOPs are not counted here", "Use torch.utils.flop_counter.", "get_model_profile", is_class=False
        ),
    },
    "runtime": {},
    "runtime.activation_checkpointing": {},
    "runtime.activation_checkpointing.checkpointing": CHECKPOINTING,
    "runtime.config": CONFIG,
    "runtime.dataloader": REPEATING,
    "runtime.engine": ENGINE,
    "runtime.lr_schedules": LR_SCHEDULES,
    "runtime.pipe": PIPE,
    "runtime.pipe.engine": PIPE,
    "runtime.pipe.module": PIPE,
    "runtime.pipe.topology": PIPE,
    "runtime.sequence_parallel": {},
    "runtime.sequence_parallel.ulysses_sp": _absent(
        *_SEQUENCES, "UlyssesSPAttentionHF", "UlyssesSPDataLoaderAdapter", "UlyssesSPAttention"
    ),
    "runtime.utils": RUNTIME_UTILS,
    "runtime.zero": ZERO,
    "runtime.zero.partition_parameters": {
        **ZERO,
        **ACCELERATOR,
        # transformers puts a function of its own in the place of the first, around what Init changes.
        **_same("runtime.train.parallel.zero", "zero_wrapper_for_fp_tensor_constructor"),
        "_orig_torch_arange": "torch:arange",
    },
    "runtime.zero.stage3": ZERO,
    "runtime.zero.stage_1_and_2": ZERO,
    "runtime.zero.utils": ZERO,
    "utils": UTILS,
    "utils.groups": GROUPS,
    "utils.logging": LOGGING,
    "utils.tensor_fragment": FULL,
    "utils.z3_leaf_module": LEAVES,
    "utils.zero_to_fp32": WHOLE,
    "zero": ZERO,
}


def children(module: str) -> frozenset[str]:
    """The last parts of the names of the modules directly below one."""
    start = f"{module}." if module else ""
    below = (name.removeprefix(start) for name in MODULES if name.startswith(start) and name != module)
    return frozenset(name for name in below if name and "." not in name)
