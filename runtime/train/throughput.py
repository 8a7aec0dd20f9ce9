"""How many samples a training takes in a second."""

from __future__ import annotations

import time


class Throughput:
    """Samples of all ranks per second over the optimizer steps after the first, which warms up."""

    def __init__(self) -> None:
        self.global_step_count = 0
        self.epoch_count = 0
        self._began = self._ended = 0.0
        self._samples = 0

    def note(self, samples: int) -> None:
        """An optimizer step of so many samples has ended."""
        self._ended = time.perf_counter()
        if self.global_step_count == 0:
            self._began = self._ended
        else:
            self._samples += samples
        self.global_step_count += 1

    def avg_samples_per_sec(self) -> float:
        """Samples per second; 0 before the second step."""
        return self._samples / (self._ended - self._began) if self._samples else 0.0

    def update_epoch_count(self) -> None:
        """Another epoch begins, as the script counts them."""
        self.epoch_count += 1
