"""Saves beside the training: the state is copied at the step; a thread writes, proves and commits it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from runtime.train.checkpoint.folder import check_tag
from runtime.train.checkpoint.save import save, write
from runtime.train.checkpoint.snapshot import Staging, take

if TYPE_CHECKING:
    from runtime.train.state import TrainingState

logger = logging.getLogger("runtime")


class Saves:
    """The saves of one training, one after the other.

    A save beside the training talks over a process group of its own, so that its messages and the training's
    cannot be taken for each other. Its error is logged at once, and raised where all ranks come together
    next: by the next save or load, or by `wait`. The interpreter does not end before the thread has.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._group: dist.ProcessGroup | None = None
        self._staging = Staging()

    def save(
        self,
        training: TrainingState,
        root: Path,
        tag: str,
        client_state: Mapping[str, Any],
        *,
        frozen: bool,
        write_latest: bool,
    ) -> Path:
        """Saves as the configuration says: returns when it is done, or when the state has been copied."""
        self.wait()
        if not training.config.checkpoint.async_save:
            return save(training, root, tag, client_state, frozen=frozen, write_latest=write_latest)
        if self._group is None:
            self._group = training.dims.dp.beside("gloo")
        snapshot = take(training, check_tag(tag), client_state, frozen=frozen, staging=self._staging)
        self._start(lambda: write(training, root, snapshot, write_latest=write_latest, peers=self._group))
        return root / tag

    def wait(self) -> None:
        """Waits for the save under way, and raises its error once.

        Raises:
            CheckpointFailed: the save failed; the last checkpoint is untouched.
        """
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _start(self, act: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=self._run, args=(act,), name="checkpoint")
        self._thread.start()

    def _run(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as e:  # it is raised in the thread that trains
            logger.error("%s", e)
            self._error = e
