"""What a piece of work took of this node's processors, from the kernel's own accounts (proc(5))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Seconds in which this thread worked, and waited for a processor while others had them; `idle` and
    `total` are the seconds of all processors of the machine. All 0 where the kernel does not count."""

    worked: float = 0.0
    waited: float = 0.0
    idle: float = 0.0
    total: float = 0.0

    @property
    def idle_share(self) -> float:
        """The part of the machine's processors that had nothing to do."""
        return self.idle / self.total if self.total else 1.0


def now() -> Effort:
    """The accounts as they stand."""
    worked, waited = _thread()
    idle, total = _machine()
    return Effort(worked=worked, waited=waited, idle=idle, total=total)


def since(before: Effort) -> Effort:
    """What has come to the accounts of this thread and machine since."""
    after = now()
    return Effort(
        worked=after.worked - before.worked,
        waited=after.waited - before.waited,
        idle=after.idle - before.idle,
        total=after.total - before.total,
    )


def to_json(effort: Effort) -> dict[str, float]:
    """As plain values."""
    return asdict(effort)


def from_json(values: Mapping[str, Any]) -> Effort:
    """Back from plain values; what is missing counts as not counted."""
    return Effort(**{name: float(values.get(name, 0.0)) for name in Effort.__dataclass_fields__})


def _thread() -> tuple[float, float]:
    try:
        worked, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
        return int(worked) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


def _machine() -> tuple[float, float]:
    """Idle and all seconds; the fields are hundredths, and guests' are in user's already."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        hundredths = [int(field) for field in fields]
        return sum(hundredths[3:5]) / 100, sum(hundredths) / 100
    except (OSError, ValueError):
        return 0.0, 0.0
