"""Which processes run from a folder: their program, or a library that they have loaded, lies below it."""

from __future__ import annotations

import os

SHOWN = 120


def running_in(folder: str) -> list[str]:
    """Number and command of each, as texts for people; what ends meanwhile is left out."""
    below = os.path.join(os.path.realpath(folder), "")
    numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    return [f"{number} ({command(number)})" for number in numbers if runs_from(number, below)]


def runs_from(number: int, below: str) -> bool:
    try:
        if os.readlink(f"/proc/{number}/exe").startswith(below):
            return True
        with open(f"/proc/{number}/maps", "rb") as stream:
            return b" " + os.fsencode(below) in stream.read()
    except OSError:
        return False


def command(number: int) -> str:
    try:
        with open(f"/proc/{number}/cmdline", "rb") as stream:
            words = stream.read(4096).decode("utf-8", "replace").rstrip("\0").replace("\0", " ")
    except OSError:
        return "it has ended"
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:SHOWN]


def refusal(folder: str) -> str:
    """Why the folder is not moved; "" where nothing runs from it."""
    found = running_in(folder)
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return (
        f"processes run from {folder}, which would go on with other files: {', '.join(found[:5])}{more}. "
        "Nothing was moved. Wait until they have ended, or end them (kill NUMBER), then run it again"
        if found
        else ""
    )
