"""The door to the terminal: what other machines say is text alone, a job's own output almost as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# ECMA-48: control sequences (CSI), strings (OSC, DCS, SOS, PM, APC) up to their end, other escapes.
_ESCAPE = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\n]*?(?:\x07|\x1b\\|\x9c|(?=\n)|$)"
    r"|\x1b[ -/]*[0-~]?"
)
# Other controls, marks that turn the direction of writing (UAX #9), and halves of characters.
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_OBEYED = re.compile(f"{_ESCAPE}|{_CONTROL}")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_RESET = "\x1b[0m"


def printable(text: str) -> str:
    """The text without what a terminal would obey: lines and tabs stay."""
    return _OBEYED.sub("", text)


def output(piece: str) -> str:
    """A piece of a job's output: colours stay, to its end, and so does the return of a progress bar.

    What moves the cursor elsewhere could write over what others have said, so it goes.
    """
    kept = _OBEYED.sub(
        lambda found: found[0] if found[0] == "\r" or _COLOUR.fullmatch(found[0]) else "", piece
    )
    body = kept.rstrip("\r\n")
    return f"{body}{_RESET}{kept[len(body) :]}" if _COLOUR.search(body) else kept


class Console(RichConsole):
    """Rich's, whose own colours stay; control characters in what it prints do not."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A text, printable before Rich takes out the ends of its escapes."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of printable text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
