"""The block `compile`."""

from __future__ import annotations

from typing import Any

from runtime.train.config.fields import Block, Whole, key

_DEEP = "DeepCompile is not implemented here"


class Compile(Block):
    """torch.compile of every transformer block; `engine.compile()` does the same later."""

    enabled: bool = key(False, "compile every transformer block, found from the model (a key of ours)")
    backend: str = key("inductor", "torch.compile's backend (a key of ours)")
    mode: str | None = key(None, "torch.compile's mode (a key of ours)")
    dynamic: bool | None = key(
        None, "true where sizes change from batch to batch; torch finds out if left out (a key of ours)"
    )
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
