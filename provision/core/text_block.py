"""A part of a text file that is ours, between two lines that mark it."""

from __future__ import annotations


def outside_block(text: str, begin: str, end: str) -> list[str]:
    """The lines outside the block; one without its end goes to the end of the file."""
    outside: list[str] = []
    inside = False
    for line in text.splitlines():
        inside = inside or line == begin
        if not inside:
            outside.append(line)
        inside = inside and line != end
    return outside
