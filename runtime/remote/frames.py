"""What travels on a control channel: one JSON object a line behind a record separator (RFC 7464).

The separator tells our lines from what a login shell's start-up files may print on the same stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Frame = Mapping[str, Any]

MARK = "\x1e"

# The launcher says something at least this often; a node that hears nothing for the other time ends its job.
PING_SECONDS = 5.0
SILENCE_SECONDS = 60.0


def encode(kind: str, **values: Any) -> bytes:
    """A frame as it is written."""
    return f"{MARK}{json.dumps({'kind': kind, **values})}\n".encode()


def decode(line: str) -> Frame | None:
    """The frame of a line, or None for a line that is not one."""
    if not line.startswith(MARK):
        return None
    try:
        values = json.loads(line[1:])
    except (ValueError, RecursionError):  # a number of thousands of digits, lists a thousand deep
        return None
    return values if isinstance(values, dict) and "kind" in values else None
