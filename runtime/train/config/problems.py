"""What is wrong with a configuration, said all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from runtime.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: where, what was found, what to do."""

    where: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found}. {self.fix}"


class ConfigError(BadInput):
    """A configuration cannot be used; `problems` holds every reason that was found."""

    def __init__(self, origin: str, problems: Sequence[Problem]) -> None:
        first = problems[0]
        if len(problems) == 1:
            super().__init__(f"use {origin}", found=f"{first.where}: {first.found}", fix=first.fix)
        else:
            listed = "".join(f"\n  {number}. {problem}" for number, problem in enumerate(problems, 1))
            super().__init__(
                f"use {origin}", found=f"{len(problems)} problems:{listed}\n", fix="Correct each of them."
            )
        self.problems = tuple(problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence with the closest of the known words, or with where to find them all."""
    known = sorted(known)
    close = get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    if close:
        match = next(name for name in known if name.lower() == close[0])
        return f"Did you mean {match}?"
    if len(known) <= 12:
        return f"Known here: {', '.join(known)}."
    return "`python -m runtime config schema` lists the keys."
