"""Has ansible-playbook print as text what nodes say: a terminal obeys none of it."""

from __future__ import annotations

import re
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.utils.display import Display

from provision.printable import printable
from provision.roles.proxy import hidden
from provision.roles.run_start import THIS_RUN

DOCUMENTATION = r"""
name: printable_display
type: aggregate
short_description: Print no control characters but Ansible's own colours
description:
  - The password of the site's proxy is printed nowhere, whoever says it.
  - Ansible escapes what it prints of a result, but not the message of a task that failed, nor the label of a
    loop's item. What a node said stands in both.
author: Clusterwright
"""

# As ansible.utils.color writes them; nothing that hides or blinks.
_COLOUR = re.compile(r"(\x1b\[(?:0|[01];3[0-7]|38;5;[0-9]{1,3})m)")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "printable_display"

    def __init__(self) -> None:
        """Callbacks are made before the first word of a run is printed."""
        super().__init__()
        show_printable(self._display)


def show_printable(display: Display) -> None:
    """All that this process prints goes through `display`, warnings, errors and words of its forks, too."""
    show = display.display

    def show_text(msg: str, color: str | None = None, *others: Any, **options: Any) -> None:
        text = printable(msg) if color else with_colours(msg)
        show(hidden(text, THIS_RUN.unprinted), color, *others, **options)

    display.display = show_text


def with_colours(text: str) -> str:
    """The text, printable, with the colours that stand in it: those of a recap and of a difference."""
    return "".join(piece if _COLOUR.fullmatch(piece) else printable(piece) for piece in _COLOUR.split(text))
