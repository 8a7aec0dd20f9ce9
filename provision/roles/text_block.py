"""A part of a text file that is ours, between two lines that mark it."""

from __future__ import annotations

from provision.errors import BadInput


def lines_of(text: str) -> list[str]:
    """The lines without their ends; str.splitlines takes other characters for ends, too.

    A comment of somebody else with a form feed in it would become a comment and a line that counts.
    """
    return text.removesuffix("\n").split("\n") if text else []


def outside_block(text: str, begin: str, end: str) -> list[str]:
    """The lines outside the block.

    Raises:
        BadInput: it has no end, so that nobody knows what behind it is ours; a whole file of ours needs none.
    """
    outside: list[str] = []
    inside = False
    for line in lines_of(text):
        inside = inside or line.rstrip("\r") == begin
        if not inside:
            outside.append(line)
        inside = inside and line.rstrip("\r") != end
    if inside and outside:
        raise BadInput(
            f"write anew what stands behind '{begin}'",
            found=f"there is no '{end}' behind it, so that lines of others may follow; nothing was written",
            fix="Put that line behind the last one of ours.",
        )
    return outside
