"""What another machine says, as a terminal may get it."""

from __future__ import annotations

import re

# ECMA-48: control sequences (CSI), strings (OSC, DCS, SOS, PM, APC) up to their end, other escapes.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\n]*?(?:\x07|\x1b\\|\x9c|(?=\n)|$)"
    r"|\x1b[ -/]*[0-~]?"
)
# Other controls, marks that turn the direction of writing (UAX #9), and halves of characters.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text without what a terminal would obey: lines and tabs stay."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def one_line(text: str) -> str:
    """The same on one line: whoever chose the words begins no line of its own."""
    return " / ".join(line for line in printable(text).split("\n") if line.strip())
