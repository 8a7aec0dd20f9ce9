"""What a rank of the smoke test says on standard output, besides text: one marked JSON line for each event.

The launcher relays a rank's output over ssh, which is not the network under test, so a rank that hangs in a
collective is still heard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MARK = "::smoke "
BEAT_SECONDS = 0.5

# Before the first operation: the process runs, torch is imported, the group is formed.
STARTED, IMPORTED, JOINED = "started", "imported", "joined"
# The network that NCCL has chosen, once it has.
TRANSPORT = "transport"


def encode(event: str, **values: Any) -> str:
    """The line of an event, its end included."""
    return f"{_MARK}{json.dumps({'event': event, **values})}\n"


def decode(line: str) -> Mapping[str, Any] | None:
    """The event of a line, or None for a line of plain output."""
    if not line.startswith(_MARK):
        return None
    try:
        values = json.loads(line[len(_MARK) :])
    except json.JSONDecodeError:
        return None
    return values if isinstance(values, dict) and "event" in values else None
