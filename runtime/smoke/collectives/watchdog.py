"""Follows the ranks of a smoke test while they run, and ends it when one step takes longer than it may."""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.probes.finding import Finding
from runtime.smoke.collectives import events
from runtime.smoke.collectives.progress import Progress
from runtime.smoke.collectives.stragglers import localize

# Importing torch from a cold disk, on all nodes at once.
START_SECONDS = 90.0


class Watch:
    """Hears the ranks; `hang` is set when the slowest has not moved within the time-out."""

    def __init__(
        self,
        progress: Progress,
        *,
        timeout_seconds: float,
        on_progress: Callable[[Progress], None],
        on_hang: Callable[[Finding], None],
    ) -> None:
        self.progress = progress
        self.hang: Finding | None = None
        self.failed_at = 0.0
        self._timeout_seconds = timeout_seconds
        self._on_progress = on_progress
        self._on_hang = on_hang
        self._front = -1
        self.moved_at = time.monotonic()

    def on_text(self, rank: int, piece: str) -> None:
        """A line of a rank's output; what is not marked is the rank's own text and stays in its log."""
        event = events.decode(piece)
        if event is not None:
            self.progress.hear(rank, event, time.monotonic())

    def on_tick(self) -> str:
        """Ends the job, with the name of whoever holds it up, once a step has taken too long."""
        now = time.monotonic()
        if self.progress.front != self._front:
            self._front, self.moved_at = self.progress.front, now
            self._on_progress(self.progress)
        waited, limit = now - self.moved_at, self._limit()
        if self.progress.finished or waited <= limit:
            return ""
        self.hang = localize(self.progress, now=now, waited_seconds=waited)
        self._on_hang(self.hang)
        return f"a step was not done within {limit:g} s"

    def on_failure(self, outcome: object) -> None:
        """Said by the report, which comes at once. The time is kept: soon after, every rank is silent."""
        self.failed_at = time.monotonic()

    def _limit(self) -> float:
        return max(START_SECONDS, self._timeout_seconds) if self.progress.starting else self._timeout_seconds
