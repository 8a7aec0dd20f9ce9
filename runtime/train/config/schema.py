"""The whole of ds_config.json, strictly: every key that the field's runtime knows, and what it means here.

Keys, defaults and meanings follow DeepSpeed 0.19.8. What only observes a training may be accepted without
effect; what would change its numbers or its memory is honoured or refused.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

from pydantic import ConfigDict

from runtime.train.config.data import Absent, DataEfficiency
from runtime.train.config.fields import Block, Whole, key
from runtime.train.config.precision import Bf16, DataType, DataTypes, Fp16, TorchAutocast
from runtime.train.config.training import Optimizer, Scheduler

_UNWATCHED = "there is no such monitor here; metrics are the script's own"
_BY_BLOCK = "FSDP2 moves one transformer block at a time: the block is the bucket"
_RESIDENT = "FSDP2 keeps one block and its successor resident, whatever their size"
_NO_QUANTISED = "collectives are not quantised here"
_DEEP = "DeepCompile is not implemented here"


class Compile(Block):
    """torch.compile of every transformer block; `engine.compile()` does the same later."""

    enabled: bool = key(False, "compile every transformer block, found from the model (a key of ours)")
    backend: str = key("inductor", "torch.compile's backend (a key of ours)")
    mode: str | None = key(None, "torch.compile's mode (a key of ours)")
    dynamic: bool | None = key(
        None, "true where sizes change from batch to batch; torch finds out if left out (a key of ours)"
    )
    disable: bool = key(False, "compile nothing", idle="the key enabled decides, and is false if left out")
    kwargs: dict[str, Any] = key({}, "arguments of torch.compile", only="write mode and dynamic beside it")
    deepcompile: bool = key(False, "the peer's compiler passes", only=_DEEP)
    autoep_non_moe: bool = key(False, "compile around experts", idle=_DEEP)
    free_activation: bool = key(False, "free activations early", idle=_DEEP)
    free_activation_threshold: Whole = key(10 * 1024 * 1024, "bytes of these at least", ge=0, idle=_DEEP)
    offload_activation: bool = key(False, "activations in host memory", idle=_DEEP)
    offload_activation_pin_memory: bool = key(True, "page-locked", idle=_DEEP)
    offload_opt_states: bool = key(False, "states in host memory", idle=_DEEP)
    offload_parameters: bool = key(False, "parameters in host memory", idle=_DEEP)
    double_buffer: bool = key(True, "two buffers", idle=_DEEP)
    symmetric_memory: bool = key(False, "symmetric memory", idle=_DEEP)
    debug_log: bool = key(False, "dump graphs", idle=_DEEP)
    sync_before_reduce: bool = key(False, "synchronise", idle=_DEEP)
    sync_after_reduce: bool = key(False, "synchronise", idle=_DEEP)
    sync_before_allgather: bool = key(False, "synchronise", idle=_DEEP)
    sync_after_allgather: bool = key(False, "synchronise", idle=_DEEP)
    keep_int_input_tensors: bool = key(True, "keep inputs", idle=_DEEP)
    keep_all_input_tensors: bool = key(False, "keep inputs", idle=_DEEP)
    passes: list[Any] | None = key(None, "which passes", idle=_DEEP)


class OffloadOptimizer(Block):
    """Where fp32 master weights and optimizer states live, and where the optimizer runs."""

    device: Literal["none", "cpu", "nvme"] = key("none", "where optimizer states live")
    nvme_path: str | None = key(None, "folder on the disk that holds them when device is nvme")
    pin_memory: bool = key(True, "page-locked host memory; without a GPU there is nothing to lock it for")
    buffer_count: Whole = key(4, "sub-groups of moments in memory at a time", ge=1)
    pipeline_read: bool = key(False, "read ahead", idle="reads are always ahead of the update")
    pipeline_write: bool = key(False, "write behind", idle="writes are always behind the update")
    fast_init: bool = key(False, "initialise quickly", idle="states are created at the first step")
    ratio: float = key(1.0, "part of the states that is offloaded", only="offloading is all or nothing here")
    super_offload: bool = key(False, "superchip offload", only="it is not implemented here")
    cpuadam_cores_perc: float = key(0.8, "cores for super_offload", idle="super_offload is not implemented")


class OffloadParam(Block):
    """Where parameters live between uses; stage 3 only."""

    device: Literal["none", "cpu", "nvme"] = key("none", "where parameters live between uses")
    nvme_path: str | None = key(None, "folder on the disk that holds them when device is nvme")
    pin_memory: bool = key(True, "page-locked host memory; without a GPU there is nothing to lock it for")
    buffer_count: Whole = key(5, "buffers of parameters in flight", ge=1, idle=_BY_BLOCK)
    buffer_size: Whole = key(100_000_000, "elements in a buffer", ge=1, idle=_BY_BLOCK)
    max_in_cpu: Whole = key(1_000_000_000, "elements kept in memory", ge=0, idle=_BY_BLOCK)


class Zero(Block):
    """What is sharded over the data-parallel ranks, and how it moves."""

    stage: Literal[0, 1, 2, 3] = key(0, "0 nothing, 1 optimizer states, 2 and gradients, 3 and parameters")
    offload_optimizer: OffloadOptimizer = key(
        OffloadOptimizer(),
        "cpu: masters, gradient shards and states in host memory; nvme: masters and states in files, "
        "gradient shards in host memory; shards are copied up to be gathered",
    )
    offload_param: OffloadParam = key(OffloadParam(), "parameters outside the device; stage 3")
    zero_hpz_partition_size: Whole = key(
        1, "ranks that share a second copy of the parameters between forward and backward; stage 3", ge=1
    )
    sub_group_size: Whole = key(
        1_000_000_000, "elements updated at a time when states are on nvme; 16777216 at most are", ge=1
    )
    reduce_bucket_size: Whole = key(500_000_000, "elements reduced at a time", gt=0, idle=_BY_BLOCK)
    allgather_bucket_size: Whole = key(500_000_000, "elements gathered at a time", ge=0, idle=_BY_BLOCK)
    overlap_comm: bool | None = key(
        None, "reduce while computing", idle="FSDP2 always overlaps where streams exist"
    )
    reduce_scatter: bool = key(True, "reduce-scatter, not all-reduce", idle="FSDP2 always reduce-scatters")
    contiguous_gradients: bool = key(True, "one buffer for gradients", idle=_BY_BLOCK)
    allgather_partitions: bool = key(True, "all-gather, not broadcasts", idle="FSDP2 always all-gathers")
    use_multi_rank_bucket_allreduce: bool = key(True, "one bucket for all ranks", idle=_BY_BLOCK)
    round_robin_gradients: bool = key(False, "spread gradient copies", idle="FSDP2 shards evenly")
    ignore_unused_parameters: bool = key(
        True, "parameters without gradient are no error", idle="FSDP2 leaves them as they are; nothing checks"
    )
    compute_grad_norm: bool = key(True, "keep the gradient's norm", idle="computed where a step needs it")
    load_from_fp32_weights: bool = key(True, "start from fp32 masters", idle="checkpoints hold the masters")
    elastic_checkpoint: bool = key(False, "resume at another size", idle="every checkpoint can be resharded")
    legacy_stage1: bool = key(False, "an old stage 1", idle="there is one mechanism for all stages")
    parameter_alignment: bool = key(False, "pad parameters to 16 bytes", idle="PyTorch aligns them")
    stage3_prefetch_bucket_size: Whole = key(50_000_000, "elements fetched ahead", ge=0, idle=_BY_BLOCK)
    stage3_param_persistence_threshold: Whole = key(
        100_000, "parameters not partitioned below", ge=0, idle="small parameters travel with their block"
    )
    stage3_model_persistence_threshold: Whole = key(
        sys.maxsize, "upper bound of those", ge=0, idle="small parameters travel with their block"
    )
    stage3_max_live_parameters: Whole = key(1_000_000_000, "elements resident", ge=0, idle=_RESIDENT)
    stage3_max_reuse_distance: Whole = key(1_000_000_000, "elements until reuse", ge=0, idle=_RESIDENT)
    stage3_gather_16bit_weights_on_model_save: bool = key(
        False, "whole weights with a checkpoint", idle="`python -m runtime checkpoint export` gathers them"
    )
    stage3_module_granularity_threshold: Whole = key(0, "modules fetched whole", ge=0, idle=_BY_BLOCK)
    stage3_use_all_reduce_for_fetch_params: bool = key(False, "all-reduce to fetch", idle=_BY_BLOCK)
    stage3_allgather_sequential: bool = key(False, "gather one at a time", idle=_BY_BLOCK)
    zero_quantized_weights: bool = key(False, "int8 all-gather", only=_NO_QUANTISED)
    zero_quantized_nontrainable_weights: bool = key(False, "int8 frozen weights", only=_NO_QUANTISED)
    zero_quantized_gradients: bool = key(False, "int4 reduction", only=_NO_QUANTISED)
    memory_efficient_linear: bool = key(True, "recompute in linear layers", idle="PyTorch's own is used")
    pipeline_loading_checkpoint: bool = key(False, "load in a pipeline", idle="shards load in parallel")
    override_module_apply: bool = key(True, "replace Module.apply", idle="modules are not replaced")
    log_trace_cache_warnings: bool = key(False, "log the trace cache", idle="there is no trace cache")
    enable_sanity_checks: bool = key(False, "extra checks", idle="there are no such checks")
    save_muon_momentum_buffer_in_memory: bool = key(False, "Muon's momentum", idle="Muon is not built in")
    zenflow: Any = key(None, "asynchronous offloaded updates", only="ZenFlow is not implemented here")
    leaf_module: dict[str, Any] = key({}, "modules fetched whole", idle=_BY_BLOCK)

    @property
    def pins_host_memory(self) -> bool:
        """Whether shards in host memory are page-locked; those that are mapped from a file cannot be."""
        return self.offload_optimizer.pin_memory and self.offload_optimizer.device != "nvme"


class Watcher(Block):
    """A monitor or profiler: it changes no number, so that its contents are accepted as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    enabled: bool = key(False, "switch it on", idle=_UNWATCHED)


class TensorParallel(Block):
    """Tensor parallelism."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    autotp_size: Whole = key(0, "ranks in a tensor-parallel group", ge=0, idle="a rank is a group of its own")


class ActivationCheckpointing(Block):
    """Recompute in the backward what the forward would have kept; on as soon as the block is there."""

    enabled: bool = key(True, "checkpoint every transformer block, found from the model (a key of ours)")
    cpu_checkpointing: bool = key(False, "keep what remains in host memory")
    partition_activations: bool = key(
        False,
        "split them over tensor-parallel ranks",
        idle="there is one rank for each replica of the activations",
    )
    contiguous_memory_optimization: bool = key(
        False, "one buffer for them", idle="PyTorch's allocator keeps what a block's input needs"
    )
    number_checkpoints: Whole | None = key(None, "how many", ge=1, idle="every transformer block is one")
    synchronize_checkpoint_boundary: bool = key(False, "synchronise at boundaries", idle="streams order it")
    profile: bool = key(False, "time them", idle=_UNWATCHED)


class Checkpoint(Block):
    """Saving and loading."""

    keep_last: Whole | None = key(
        None, "newest checkpoints that are kept; all if left out (a key of ours)", ge=1
    )
    keep_every: Whole | None = key(
        None, "checkpoints of steps divisible by this are always kept (a key of ours)", ge=1
    )
    async_save: bool = key(
        False, "copy the state at the step and write it beside the training (a key of ours)"
    )
    buddy: bool = key(
        True, "where nodes do not share a disk, each keeps a copy of its neighbour's files (a key of ours)"
    )
    tag_validation: Literal["Warn", "Ignore", "Fail"] = key(
        "Warn",
        "what happens when ranks ask for different tags",
        idle="they are always compared, and it fails",
    )
    load_universal: bool = key(
        False, "load another size's", idle="every checkpoint loads at any size and stage"
    )
    use_node_local_storage: bool = key(
        False, "each node writes to its own disk", idle="whether nodes share a disk is found out"
    )
    parallel_write: dict[str, Any] = key({}, "writers in parallel", idle="every rank writes its own shard")
    checkpoint_serialization: bool = key(True, "the peer's serialisation", idle="shards are DCP's")
    writer: dict[str, Any] = key({}, "the peer's fast writer", idle="shards are DCP's")


class Aio(Block):
    """Disk access for nvme offload."""

    block_size: Whole = key(1_048_576, "bytes in a read or write", ge=4096)
    queue_depth: Whole = key(8, "reads and writes in flight", ge=1)
    intra_op_parallelism: Whole = key(1, "threads for each", ge=1, idle="queue_depth threads share the work")
    single_submit: bool = key(False, "submit one at a time", idle="threads are used, not libaio")
    overlap_events: bool = key(True, "overlap submitting and waiting", idle="threads are used, not libaio")
    use_gds: bool = key(False, "GPU direct storage", idle="states pass through host memory here")


class Config(Block):
    """ds_config.json."""

    @property
    def compute_type(self) -> DataType:
        """The type of the forward and the backward."""
        return "fp16" if self.fp16.enabled else "bf16" if self.bf16.enabled else "fp32"

    @property
    def shards_wait_in(self) -> DataType:
        """The type of gradient shards between micro-steps."""
        zero, wanted = self.zero_optimization, self.data_types.grad_accum_dtype
        if wanted is not None:
            return wanted
        offloaded = zero.offload_optimizer.device != "none" or zero.offload_param.device != "none"
        return self.compute_type if zero.stage == 2 and not offloaded else "fp32"

    train_batch_size: Whole | None = key(None, "samples in an optimizer step, over all ranks", ge=1)
    train_micro_batch_size_per_gpu: Whole | None = key(
        None, "samples in one forward and backward of one rank", ge=1
    )
    gradient_accumulation_steps: Whole | None = key(None, "forwards and backwards in an optimizer step", ge=1)

    zero_optimization: Zero = key(Zero(), "sharding")
    optimizer: Optimizer | None = key(None, "optimizer; or pass one to runtime.initialize")
    scheduler: Scheduler | None = key(None, "learning-rate schedule; or pass one to runtime.initialize")
    gradient_clipping: float = key(
        1.0, "largest norm of the gradient; 0 for none; 1.0 where it is left out, as the peer has it", ge=0
    )
    fp16: Fp16 = key(Fp16(), "half precision")
    bf16: Bf16 = key(Bf16(), "bfloat16")
    torch_autocast: TorchAutocast = key(TorchAutocast(), "autocast")
    data_types: DataTypes = key(DataTypes(), "types of what is not a parameter")
    communication_data_type: DataType | None = key(
        None, "type in which gradients travel; the compute type if left out"
    )
    gradient_allreduce_op: Literal["mean", "sum"] = key("mean", "how ranks' gradients are combined")
    activation_checkpointing: ActivationCheckpointing | None = key(None, "recompute activations")
    checkpoint: Checkpoint = key(Checkpoint(), "saving and loading")
    aio: Aio = key(Aio(), "disk access for nvme offload")
    dataloader_drop_last: bool = key(False, "drop what does not fill the last batch of an epoch")
    seed: Whole = key(42, "seed of the order of training_data (a key of ours)", ge=0)
    steps_per_print: Whole | None = key(None, "steps between two lines of progress", ge=1)

    wall_clock_breakdown: bool = key(False, "time the parts of a step", idle=_UNWATCHED)
    memory_breakdown: bool = key(False, "report memory", idle=_UNWATCHED)
    dump_state: bool = key(False, "print the engine", idle="`config explain` prints what is in force")
    log_level: str | None = key(
        None, "level of the log", idle="Python's logging decides; the logger is `runtime`"
    )
    tensorboard: Watcher = key(Watcher(), "TensorBoard")
    wandb: Watcher = key(Watcher(), "Weights & Biases")
    csv_monitor: Watcher = key(Watcher(), "CSV files")
    comet: Watcher = key(Watcher(), "Comet")
    comms_logger: Watcher = key(Watcher(), "log of collectives")
    flops_profiler: Watcher = key(Watcher(), "FLOPs")
    timers: dict[str, Any] = key({}, "timers", idle=_UNWATCHED)
    vocabulary_size: Whole | None = key(None, "size of the vocabulary", idle="nothing depends on it")

    zero_allow_untested_optimizer: bool = key(
        False, "any optimizer", idle="any that works by element is right"
    )
    zero_force_ds_cpu_optimizer: bool = key(
        True, "the peer's CPU Adam", idle="PyTorch's fused AdamW is as fast"
    )
    prescale_gradients: bool = key(False, "divide before reducing", idle="FSDP2 does so where fp16 needs it")
    gradient_predivide_factor: float = key(1.0, "by how much", gt=0, idle="FSDP2 chooses it")
    seq_parallel_communication_data_type: DataType | None = key(
        None, "type in sequence-parallel traffic", idle="there is no sequence parallelism here"
    )
    managed_gradient_accumulation: bool = key(
        True, "the engine counts micro-steps", only="the engine always counts them"
    )
    disable_allgather: bool = key(False, "do not gather parameters", only="ZeRO needs the all-gather")
    autotuning: Absent = key(Absent(), "search for settings")
    data_efficiency: DataEfficiency = key(DataEfficiency(), "how training_data is sampled")
    weight_quantization: Absent = key(Absent(), "quantised weights")
    hybrid_engine: Absent = key(Absent(), "training and generating in turn")
    tensor_parallel: TensorParallel = key(TensorParallel(), "tensor parallelism; not implemented here")
    expert_parallel: Absent = key(Absent(), "expert parallelism")
    pipeline: dict[str, Any] = key({}, "settings of PipelineModule", idle="there is no PipelineModule here")
    compile: Compile = key(Compile(), "torch.compile of every transformer block")
