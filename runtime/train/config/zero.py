"""The block `zero_optimization` and what offloads from it."""

from __future__ import annotations

import sys
from typing import Any, Literal

from runtime.train.config.fields import Block, Whole, key

_BY_BLOCK = "FSDP2 moves one transformer block at a time: the block is the bucket"
_RESIDENT = "FSDP2 keeps one block and its successor resident, whatever their size"
_NO_QUANTISED = "collectives are not quantised here"


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
        True, "parameters without gradient are no error", only="FSDP2 leaves them as they are; nothing checks"
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
    zenflow: None = key(None, "asynchronous offloaded updates", only="ZenFlow is not implemented here")
    leaf_module: dict[str, Any] = key({}, "modules fetched whole", idle=_BY_BLOCK)

    @property
    def pins_host_memory(self) -> bool:
        """Whether shards in host memory are page-locked; those that are mapped from a file cannot be."""
        return self.offload_optimizer.pin_memory and self.offload_optimizer.device != "nvme"
