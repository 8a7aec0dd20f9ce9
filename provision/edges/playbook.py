"""Runs a playbook of this checkout on a site."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from provision.edges import process
from provision.errors import CommandFailed

CHECKOUT = Path(__file__).parents[2]
_LIMIT_SECONDS = 7200.0
_UNREACHABLE = 4  # ansible-playbook(1): one or more hosts were unreachable
_TAIL_LINES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A playbook that ended: its words, wall time, and whether a node did not answer."""

    words: tuple[str, ...]
    seconds: float
    unreachable: bool


class Play(Protocol):
    """What runs a playbook: `play`, and in unit tests what only notes that it was asked to."""

    def __call__(
        self,
        inventory: Path,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        spares: bool = False,
    ) -> Played: ...


def words_of(inventory: Path, words: Sequence[str]) -> list[str]:
    """The command, as a person would give it in the checkout."""
    return ["ansible-playbook", words[0], "-i", str(inventory), *words[1:]]


def play(
    inventory: Path,
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    spares: bool = False,
) -> Played:
    """Runs a playbook: its file and further words.

    Args:
        spares: nodes that do not answer are no failure.

    Raises:
        CommandFailed: it did not succeed; the end of what it said is in the error.
    """
    started = time.monotonic()
    bin_folder = Path(sys.executable).parent
    program, *rest = words_of(inventory.resolve(), words)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def each(line: str) -> None:
        tail.append(line)
        on_line(line)

    status = process.stream(
        [bin_folder / program, *rest],
        timeout_seconds=_LIMIT_SECONDS,
        on_line=each,
        cwd=CHECKOUT,
        env={**environment, "PATH": f"{bin_folder}:{environment.get('PATH', '')}", "ANSIBLE_NOCOLOR": "1"},
    )
    if status != 0 and not (spares and status == _UNREACHABLE):
        raise CommandFailed(
            f"run {words[0]}",
            found=f"it ended with status {status}\n{_essence(tail)}",
            fix="Mend what it names, then run the same command again: it goes on where it stopped.",
        )
    return Played(words=tuple(words), seconds=time.monotonic() - started, unreachable=status == _UNREACHABLE)


def _essence(tail: Sequence[str]) -> str:
    """From the last failure on, without the recaps."""
    lines = list(tail)
    begins = [number for number, line in enumerate(lines) if line.startswith(("fatal:", "[ERROR]:", "ERROR"))]
    ends = [number for number, line in enumerate(lines) if line.startswith("PLAY RECAP")]
    return "\n".join(lines[begins[0] if begins else 0 : ends[0] if ends else None]).strip()
