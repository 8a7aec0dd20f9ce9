"""How a script saves and loads a training, under the names that the field uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from runtime.errors import BadInput
from runtime.train.checkpoint.load import load
from runtime.train.checkpoint.save import Saves
from runtime.train.checkpoint.state import persistent_buffers
from runtime.train.optim.precision import compute_dtype
from runtime.train.parallel.fsdp import drop_gathered
from runtime.train.state import TrainingState


class Saved(TrainingState, Protocol):
    """What `Saving` needs of the engine that it is a part of."""

    _saves: Saves

    def end_cut_off(self) -> None:
        """Ends a pass that an exception has cut off. Collective, if there is one."""
        ...

    def whole_16bit_weights(self, exclude_frozen_parameters: bool = False) -> dict[str, torch.Tensor]:
        """See `Saving.whole_16bit_weights`."""

    def begin_step(self) -> None:
        """Begins an optimizer step anew with weights that were loaded."""
        ...


class Saving:
    """The part of an engine that checkpoints are asked of."""

    def save_checkpoint(
        self: Saved,
        save_dir: str | Path,
        tag: str | None = None,
        client_state: Mapping[str, Any] | None = None,
        save_latest: bool = True,
        exclude_frozen_parameters: bool = False,
    ) -> Path:
        """Saves everything that a resumed run needs, and returns the checkpoint's folder. Collective.

        The tag is global_step<N> where None; a tag that exists is not overwritten but numbered. Micro-steps
        since the last optimizer step are not saved; a resumed run takes them again.

        With `checkpoint.async_save` it returns once the state is copied, and the rest is done beside the
        training; `wait_for_checkpoint` waits for that, and the next save or load does.
        """
        self.end_cut_off()
        drop_gathered(self.module)
        return self._saves.save(
            self,
            Path(save_dir),
            tag or f"global_step{self.global_steps}",
            client_state or {},
            frozen=not exclude_frozen_parameters,
            write_latest=save_latest,
        )

    def module_state_dict(
        self: Saved,
        destination: Any = None,
        prefix: str = "",
        keep_vars: bool = False,
        exclude_frozen_parameters: bool = False,
    ) -> dict[str, Any]:
        """The model's state dict of whole tensors; at stage 3 no rank has these, and it says what to call."""
        found: dict[str, Any] = self.module.state_dict(
            destination=destination, prefix=prefix, keep_vars=keep_vars
        )
        if exclude_frozen_parameters:
            for name, parameter in self.module.named_parameters(remove_duplicate=False):
                if not parameter.requires_grad:
                    found.pop(prefix + name, None)
        return found

    def save_16bit_model(
        self: Saved,
        save_dir: str | Path,
        save_filename: str = "pytorch_model.bin",
        exclude_frozen_parameters: bool = False,
    ) -> bool:
        """Writes whole weights in the compute type with torch.save, on rank 0. Collective at every stage.

        Rank 0 holds all of them in host memory. `python -m runtime checkpoint export` needs less, and writes
        safetensors.
        """
        weights = self.whole_16bit_weights(exclude_frozen_parameters)
        if self.dims.dp.is_first:
            Path(save_dir).mkdir(parents=True, exist_ok=True)
            torch.save(weights, Path(save_dir) / save_filename)
        return True

    def whole_16bit_weights(self: Saved, exclude_frozen_parameters: bool = False) -> dict[str, torch.Tensor]:
        """The model's state dict of whole tensors in host memory, parameters in the compute type. Collective.

        Rank 0 gets it, the others an empty one.
        """
        self.end_cut_off()
        drop_gathered(self.module)
        weights = _whole_weights(self.module, compute_dtype(self.config), self.dims.dp.is_first)
        if exclude_frozen_parameters:
            for name, parameter in self.module.named_parameters(remove_duplicate=False):
                if not parameter.requires_grad:
                    weights.pop(name, None)
        return weights

    def load_module_state_dict(
        self: Saved, state_dict: Mapping[str, Any], strict: bool = True, custom_load_fn: Any = None
    ) -> None:
        """Loads a state dict of whole tensors into the model, which every rank gives."""
        if custom_load_fn is not None:
            custom_load_fn(src=state_dict, dst=self.module)
        else:
            self.module.load_state_dict(state_dict, strict=strict)

    def wait_for_checkpoint(self: Saved) -> None:
        """Waits until the last save is committed; call it before the process group is destroyed.

        Raises:
            CheckpointFailed: it could not be written; the checkpoint before it is untouched.
        """
        self._saves.wait()

    def load_checkpoint(
        self: Saved,
        load_dir: str | Path,
        tag: str | None = None,
        load_module_strict: bool = True,
        load_optimizer_states: bool = True,
        load_lr_scheduler_states: bool = True,
        load_module_only: bool = False,
        custom_load_fn: Any = None,
    ) -> tuple[str | None, dict[str, Any]]:
        """Loads the newest whole checkpoint (or the one of a tag) at any size and stage. Collective.

        Frozen parameters may be missing in it; nothing else may, with `load_module_strict` or without.

        Gradients of micro-steps since the last optimizer step are dropped. Returns the checkpoint's folder
        and the script's own state; None and {} where there is none.
        """
        if custom_load_fn is not None:
            raise BadInput(
                "load with a function of the script's (custom_load_fn)",
                found="a checkpoint, of which each rank reads its part by itself",
                fix="Export it (`python -m runtime checkpoint export`), and load the weights into the model.",
            )
        self._saves.wait()
        self.end_cut_off()
        drop_gathered(self.module)
        loaded = load(
            self,
            Path(load_dir),
            tag,
            optimizer=load_optimizer_states and not load_module_only and self.optimizer is not None,
            schedule=load_lr_scheduler_states and not load_module_only,
        )
        if loaded is None:
            return None, {}
        self.begin_step()
        return str(loaded.path), loaded.client_state


def _whole_weights(module: nn.Module, dtype: torch.dtype, keeps: bool) -> dict[str, torch.Tensor]:
    """What a state dict has, whole and in host memory, where it is kept. Collective."""
    made: dict[int, torch.Tensor | None] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    tensors = parameters | persistent_buffers(module)
    for name, tensor in tensors.items():
        if id(tensor) not in made:  # a tied one once, on every rank
            whole = tensor.detach()
            whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
            kind = dtype if whole.is_floating_point() and name in parameters else whole.dtype
            made[id(tensor)] = whole.to("cpu", kind, copy=True) if keeps else None
    found = {name: made[id(tensor)] for name, tensor in tensors.items()}
    return {name: whole for name, whole in found.items() if whole is not None}
