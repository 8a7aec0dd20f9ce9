"""The door to the terminal: what is printed may come from another machine, and is text alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from provision.printable import printable


class Console(RichConsole):
    """Rich's, whose own colours stay; control characters in what it prints do not."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A text, printable before Rich takes out the ends of its escapes."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of printable text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
