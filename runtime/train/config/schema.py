"""The whole of ds_config.json, strictly: every key that the field's runtime knows, and what it means here.

Keys, defaults and meanings follow DeepSpeed 0.19.8. What only observes a training may be accepted without
effect; what would change its numbers or its memory is honoured or refused.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from runtime.train.config.compilation import Compile
from runtime.train.config.data import Absent, DataEfficiency
from runtime.train.config.fields import Block, Whole, key
from runtime.train.config.precision import Bf16, DataType, DataTypes, Fp16, TorchAutocast
from runtime.train.config.training import Optimizer, Scheduler
from runtime.train.config.zero import Zero

_UNWATCHED = "there is no such monitor here; metrics are the script's own"


class Watcher(Block):
    """A monitor or profiler: it changes no number, so that its contents are accepted as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    enabled: bool = key(False, "switch it on", idle=_UNWATCHED)


class TensorParallel(Block):
    """Tensor parallelism."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    autotp_size: Whole = key(0, "ranks in a tensor-parallel group", ge=0, le=1)


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
    use_gds: bool = key(False, "GPU direct storage", only="states pass through host memory here")


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
    pipeline: dict[str, Any] = key({}, "pipeline parallelism", only="it is not implemented here")
    compile: Compile = key(Compile(), "torch.compile of every transformer block")
