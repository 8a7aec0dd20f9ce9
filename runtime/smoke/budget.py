"""How far the sweep of sizes goes: as far as its time allows, by what the sizes before took. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# A size costs a round to warm up, one that counts, and about as much to make its test data.
_LEAST_ROUNDS = 3


@dataclass(slots=True, kw_only=True)
class Budget:
    """Seconds that the sweep may take, 0 for no limit; ranks that agree on seconds decide alike.

    `size` and `round_seconds` are of the last size that was measured.
    """

    limit_seconds: float
    spent_seconds: float = 0.0
    size: int = 0
    round_seconds: float = 0.0

    def spend(self, *, size: int, round_seconds: float, rounds: int) -> None:
        """Notes a size that was measured, with the slowest rank's seconds of a whole round."""
        self.spent_seconds += rounds * round_seconds
        self.size, self.round_seconds = size, round_seconds

    def against(self, size: int) -> str:
        """Why this size is left out; empty where it fits. Time grows with the bytes from the last size on."""
        if not self.limit_seconds or not self.size:
            return ""
        wanted = _LEAST_ROUNDS * self.round_seconds * max(1.0, size / self.size)
        left = self.limit_seconds - self.spent_seconds
        if wanted <= left:
            return ""
        return f"it would take {wanted:.1f} s, and {max(0.0, left):.1f} of {self.limit_seconds:g} s are left"
