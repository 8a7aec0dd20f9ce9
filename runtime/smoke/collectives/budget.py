"""How far the sweep of sizes goes: as far as its time allows, by what the sizes before took. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Budget:
    """Seconds that the sweep may take, 0 for no limit, and that one size may; ranks that agree decide alike.

    `size` and `seconds` are of the last size that was measured.
    """

    limit_seconds: float
    step_seconds: float
    spent_seconds: float = 0.0
    size: int = 0
    seconds: float = 0.0

    def spend(self, *, size: int, seconds: float) -> None:
        """Notes a size that was measured, with the slowest rank's seconds for all of it."""
        self.spent_seconds += seconds
        self.size, self.seconds = size, seconds

    def against(self, size: int) -> str:
        """Why this size is left out; empty where it fits. Time grows with the bytes from the last size on."""
        if not self.limit_seconds or not self.size:
            return ""
        wanted = self.seconds * max(1.0, size / self.size)
        left = min(self.step_seconds, max(0.0, self.limit_seconds - self.spent_seconds))
        if wanted <= left:
            return ""
        return (
            f"it would take {wanted:.1f} s, and {left:.1f} are left of the sweep's {self.limit_seconds:g} s"
        )
