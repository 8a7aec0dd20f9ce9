"""A log that another process writes, handed on as it grows."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from runtime.untrusted.files import open_plain

_MOST_BYTES = 1 << 16
# Of one piece: a line that is longer is handed on in parts.
_MOST_PIECE_BYTES = 1 << 15
# How far it may lie behind, and where it goes on then: who reads along must not hold a job up.
MOST_BEHIND_BYTES, _KEPT_BYTES = 1 << 24, 1 << 20
_PIECE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)")
# torch begins the lines of a traceback with the rank.
_RANK_PREFIX = re.compile(r"^\[rank\d+\]: ?")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*)?(?:Error|Exception|Interrupt|Exit|Warning|Failed|Fault)\b.*")


class Tail:
    """Reads what is new in a file, in pieces that end with a line's end or a progress bar's return.

    Of a file that grows faster than it is read, what lies over 16 MiB ahead is left out, and that is said.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_plain(path)
        self._rest = b""

    def read(self) -> list[str]:
        """Complete pieces that have come since the last call, at most 64 KiB; none where nothing has come."""
        if left_out := self._catch_up():
            return left_out
        self._rest += self._file.read(_MOST_BYTES - len(self._rest))
        cut = max(self._rest.rfind(b"\n"), self._rest.rfind(b"\r")) + 1
        complete, self._rest = self._rest[:cut], self._rest[cut:]
        pieces = _PIECE.findall(complete.decode(errors="replace"))
        if len(self._rest) > _MOST_PIECE_BYTES:
            pieces.append(self._rest.decode(errors="replace"))
            self._rest = b""
        return pieces

    def _catch_up(self) -> list[str]:
        """Goes on near the file's end, at a line, where that has run away; what is said of it."""
        at, end = self._file.tell(), os.fstat(self._file.fileno()).st_size
        if end - at <= MOST_BEHIND_BYTES:
            return []
        self._file.seek(end - _KEPT_BYTES)
        self._file.readline(_MOST_PIECE_BYTES)
        unfinished, self._rest = self._rest.decode(errors="replace"), b""
        mebibytes = (self._file.tell() - at) >> 20
        return [
            *([f"{unfinished}\n"] if unfinished else []),
            f"... {mebibytes} MiB of output are left out here: {self._path} has all of it\n",
        ]

    def finish(self) -> list[str]:
        """Everything that is left, the unfinished last piece included."""
        pieces: list[str] = []
        while more := self.read():
            pieces += more
        unfinished, self._rest = self._rest.decode(errors="replace"), b""
        return [*pieces, f"{unfinished}\n"] if unfinished else pieces

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def last_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last lines of a file, from its last 64 KiB; none where somebody put something else there."""
    try:
        file = open_plain(path)
    except OSError:
        return ()
    with file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _MOST_BYTES))
        return tuple(file.read(_MOST_BYTES).decode(errors="replace").splitlines()[-count:])


def cause_line(lines: Sequence[str]) -> str:
    """What went wrong, in one line: the last that names an exception, else the last that is not blank."""
    said = [_RANK_PREFIX.sub("", line).strip() for line in lines if line.strip()]
    exceptions = [line for line in said if _EXCEPTION.match(line)]
    return exceptions[-1] if exceptions else said[-1] if said else ""
