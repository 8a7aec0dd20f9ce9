"""What scripts, transformers and accelerate call of DeepSpeed's engine, by what the engine here does."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from runtime.as_deepspeed.names import ENGINE_NAMES
from runtime.errors import BadInput
from runtime.train.engine import Engine

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DeepSpeedEngine(Engine):
    """The engine under DeepSpeed's names; made by `deepspeed.initialize`."""

    @classmethod
    def names(cls) -> frozenset[str]:
        """What it answers by itself: its methods, and the attributes that its classes declare."""
        declared = (name for one in cls.__mro__ for name in inspect.get_annotations(one))
        return frozenset((*dir(cls), *declared))

    def __getattr__(self, name: str) -> Any:
        if name in ENGINE_NAMES:
            raise AttributeError(f"the engine's {name} of DeepSpeed is not here: see docs/from_deepspeed.md")
        return super().__getattr__(name)

    def backward(
        self, loss: torch.Tensor, retain_graph: bool = False, scale_wrt_gas: bool = True
    ) -> torch.Tensor:
        """Backward of a loss that is a mean over the micro-batch.

        Args:
            scale_wrt_gas: where false, the loss is this micro-batch's share of the optimizer step's already.
        """
        if retain_graph:
            raise BadInput(
                "keep the graph of a backward (retain_graph=True)",
                found="an engine whose parameters leave with the first one",
                fix="Add the losses up, and call engine.backward once.",
            )
        if not scale_wrt_gas:
            super().backward(loss * self.gradient_accumulation_steps())
            return loss
        return super().backward(loss)

    def step(self, lr_kwargs: Mapping[str, Any] | None = None) -> None:
        """Ends a micro-step; see `Engine.step`."""
        if lr_kwargs:
            raise BadInput(
                "step a schedule with arguments", found=f"lr_kwargs={lr_kwargs!r}", fix="Leave it out."
            )
        super().step()

    def load_checkpoint(  # type: ignore[override]
        self,
        load_dir: str | Path,
        tag: str | None = None,
        load_module_strict: bool = True,
        load_optimizer_states: bool = True,
        load_lr_scheduler_states: bool = True,
        load_module_only: bool = False,
        custom_load_fn: Any = None,
    ) -> tuple[str | None, dict[str, Any]]:
        """Loads the newest whole checkpoint; see `Saving.load_checkpoint`."""
        if custom_load_fn is not None:
            raise BadInput("load with a function of one's own", found="custom_load_fn", fix="Leave it out.")
        return super().load_checkpoint(
            load_dir, tag, load_optimizer_states, load_lr_scheduler_states, load_module_only
        )

    def zero_gather_16bit_weights_on_model_save(self) -> bool:
        """Whether whole weights are wanted with a saved model."""
        return self.config.zero_optimization.stage3_gather_16bit_weights_on_model_save

    def _zero3_consolidated_16bit_state_dict(
        self, exclude_frozen_parameters: bool = False
    ) -> dict[str, torch.Tensor] | None:
        """Whole weights in the compute type, in rank 0's memory; None on the others. Collective."""
        found: dict[str, torch.Tensor] = {}
        dtype = _TYPES[self.config.compute_type]
        trained = {
            name for name, p in self.module.named_parameters(remove_duplicate=False) if p.requires_grad
        }
        for name, tensor in _persistent(self.module):
            if exclude_frozen_parameters and isinstance(tensor, torch.nn.Parameter) and name not in trained:
                continue
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.global_rank == 0:
                typed = whole.to(dtype) if whole.is_floating_point() else whole
                found[name] = typed.detach().to("cpu", copy=True)
        return found if self.global_rank == 0 else None

    def save_16bit_model(
        self,
        save_dir: str | Path,
        save_filename: str = "pytorch_model.bin",
        exclude_frozen_parameters: bool = False,
    ) -> bool:
        """Writes whole weights in the compute type with torch.save, on rank 0. Collective."""
        state = self._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters)
        if state is not None:
            folder = Path(save_dir)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(state, folder / save_filename)
        return True

    save_fp16_model = save_16bit_model

    @property
    def global_rank(self) -> int:
        """This rank among all of the job."""
        return self.group.topology.rank

    @property
    def local_rank(self) -> int:
        """This rank among those of its node."""
        return self.group.topology.local_rank

    @property
    def world_size(self) -> int:
        """Ranks of the job."""
        return self.group.topology.world_size

    dp_world_size = world_size

    def gradient_clipping(self) -> float:
        """The largest norm of the gradient."""
        return self.config.gradient_clipping

    def fp16_enabled(self) -> bool:
        """Whether it computes in fp16."""
        return self.config.fp16.enabled

    def bfloat16_enabled(self) -> bool:
        """Whether it computes in bf16."""
        return self.config.bf16.enabled

    def zero_optimization(self) -> bool:
        """Whether anything is sharded."""
        return self.zero_optimization_stage() > 0

    def destroy(self) -> None:
        """Waits for a checkpoint that is being written, and lets go of the graph's leftovers."""
        self.wait_for_checkpoint()
        gc.collect()

    def empty_partition_cache(self) -> None:
        """Nothing is cached of what ranks have sent."""


def _persistent(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers that a state dict has, under each of their names, as they are sharded."""
    tensors = dict(module.named_parameters(remove_duplicate=False))
    for path, part in module.named_modules(remove_duplicate=False):
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._non_persistent_buffers_set:
                tensors[f"{path}.{name}" if path else name] = buffer
    return list(tensors.items())
