"""Follows the ranks of a smoke test, ends it when a step takes too long, and says who holds it up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from runtime.probes.finding import Finding
from runtime.smoke.collectives import events
from runtime.smoke.collectives.progress import Place, Progress

# A rank beats twice a second, also while it waits in a collective: after this time its process does not run.
SILENT_SECONDS = 2.5
# Ranks that gave up waiting fall silent too while they end; whom they waited for has been silent much longer.
_SAME_SILENCE_SHARE = 0.5
# Importing torch from a cold disk, on all nodes at once.
START_SECONDS = 90.0


def localize(progress: Progress, *, now: float, waited_seconds: float) -> Finding:
    """The ranks that are silent, or behind the others; else everyone."""
    silent = _silent(progress, now)
    if silent and len(silent) < len(progress.ranks):
        return _finding(silent, _silent_words(progress, silent, now), _STOPPED_FIX)
    behind = _behind(progress)
    if behind:
        return _finding(behind, _words(progress, behind, waited_seconds), _BEHIND_FIX)
    everyone = _words(progress, progress.ranks[:1], waited_seconds)
    found = f"no rank is behind the others; {everyone}, as is every other"
    return _finding(progress.ranks, found, _EVERYONE_FIX, conclusive=False)


_STOPPED_FIX = "See on that node whether the process is stopped (`ps -o pid,stat,wchan -C python`)."
_BEHIND_FIX = "Read that rank's log; compare the node with the others (`python -m runtime smoke --exclude`)."
_EVERYONE_FIX = "Repeat with --exclude for one node at a time: the test passes without the node at fault."


def _finding(places: Sequence[Place], found: str, fix: str, *, conclusive: bool = True) -> Finding:
    return Finding(
        check="progress",
        hosts=tuple(dict.fromkeys(place.host for place in places)),
        ranks=tuple(place.rank for place in places),
        found=found,
        fix=fix,
        conclusive=conclusive,
    )


def _silent(progress: Progress, now: float) -> list[Place]:
    """Those that were heard once and then not for a time that is like the longest silence."""
    silences = [0.0 if place.heard_at is None else now - place.heard_at for place in progress.ranks]
    least = max(SILENT_SECONDS, _SAME_SILENCE_SHARE * max(silences))
    return [place for place, silence in zip(progress.ranks, silences, strict=True) if silence > least]


def _behind(progress: Progress) -> list[Place]:
    """Those at the lowest place, where some are further; rounds count only within one operation."""
    positions = [(place.stage, place.round_number) for place in progress.ranks]
    if min(positions) == max(positions):
        return []
    return [
        place for place, position in zip(progress.ranks, positions, strict=True) if position == min(positions)
    ]


def _silent_words(progress: Progress, silent: Sequence[Place], now: float) -> str:
    return "; ".join(
        f"rank {place.rank} on {place.host} has said nothing for {now - (place.heard_at or now):.1f} s "
        f"and {progress.words(place)}"
        for place in silent
    )


def _words(progress: Progress, behind: Sequence[Place], waited_seconds: float) -> str:
    who = "; ".join(f"rank {place.rank} on {place.host} {progress.words(place)}" for place in behind)
    return f"{who} (for {waited_seconds:.0f} s)"


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
