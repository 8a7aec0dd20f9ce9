"""From where the ranks are to who keeps the test from going on: pure."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.probes.finding import Finding
from runtime.smoke.collectives.progress import Place, Progress

# A rank beats twice a second, also while it waits in a collective: after this time its process does not run.
SILENT_SECONDS = 2.5
# Ranks that gave up waiting fall silent too while they end; whom they waited for has been silent much longer.
_SAME_SILENCE_SHARE = 0.5


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
