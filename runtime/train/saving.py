"""How a script saves and loads a training, under the names that the field uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from runtime.train.checkpoint.load import load
from runtime.train.checkpoint.save import Saves
from runtime.train.parallel.shard import drop_gathered
from runtime.train.state import TrainingState


class Saved(TrainingState, Protocol):
    """What `Saving` needs of the engine that it is a part of."""

    _saves: Saves

    def end_cut_off(self) -> None:
        """Ends a pass that an exception has cut off. Collective, if there is one."""
        ...

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
        load_optimizer_states: bool = True,
        load_lr_scheduler_states: bool = True,
        load_module_only: bool = False,
    ) -> tuple[str | None, dict[str, Any]]:
        """Loads the newest whole checkpoint (or the one of a tag) at any size and stage. Collective.

        Gradients of micro-steps since the last optimizer step are dropped. Returns the checkpoint's folder
        and the script's own state; None and {} where there is none.
        """
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
