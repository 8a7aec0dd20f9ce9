"""What a rank of the smoke test says on standard output, besides text: one marked JSON line for each event.

The launcher relays a rank's output over ssh, which is not the network under test, so a rank that hangs in a
collective is still heard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from runtime.untrusted.conform import AT_LEAST_0, Malformed, Real, members, one_of

_MARK = "::smoke "
BEAT_SECONDS = 0.5

# Before the first operation: the process runs, torch is imported, the group is formed.
STARTED, IMPORTED, JOINED = "started", "imported", "joined"
# The network that NCCL has chosen, once it has.
TRANSPORT = "transport"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Elements that are not what they must be, as `runtime.smoke.collectives.pattern` finds them."""

    count: int
    index: int
    expected: Real
    found: Real


_EVENTS: Mapping[str, Mapping[str, Any]] = {
    STARTED: {"hostname": str, "pid": int},
    IMPORTED: {"torch": str},
    JOINED: {"backend": Annotated[str, one_of("gloo", "nccl")]},
    TRANSPORT: {"name": str},
    "beat": {"operation": int, "round": int},
    "begin": {"operation": int},
    "done": {"operation": int, "seconds": tuple[Annotated[float, AT_LEAST_0], ...], "wrong": Wrong | None},
}


def encode(event: str, **values: Any) -> str:
    """The line of an event, its end included."""
    return f"{_MARK}{json.dumps({'event': event, **values})}\n"


def decode(line: str) -> Mapping[str, Any] | None:
    """The event of a line, its values of the types below; None for a line of plain output."""
    if not line.startswith(_MARK):
        return None
    try:
        values = json.loads(line[len(_MARK) :])
    except (ValueError, RecursionError):
        return None
    return _event(values) if isinstance(values, dict) else None


def _event(values: dict[str, Any]) -> Mapping[str, Any] | None:
    kind = values.get("event")
    if not isinstance(kind, str) or kind not in _EVENTS:
        return None
    kinds = {"event": str, **_EVENTS[kind], **({"left_out": str} if "left_out" in values else {})}
    with suppress(Malformed):
        event = members(kinds, values)
        return event | ({"wrong": asdict(event["wrong"])} if event.get("wrong") else {})
    return None
