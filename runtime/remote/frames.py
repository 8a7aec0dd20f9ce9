"""What travels on a control channel: frames, what each kind holds, and for whom a node may speak.

A frame is one JSON object a line behind a record separator (RFC 7464). That tells our lines from what a login
shell's start-up files may print on the same stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from runtime.edges.addresses import Address, Port
from runtime.flight.dump import MOST_CALLS, Call
from runtime.probes.host import Files, Survey
from runtime.probes.job import Facts
from runtime.probes.job_firewall import Intrusion
from runtime.probes.reachability import Reach
from runtime.probes.stream import PairResult
from runtime.untrusted.conform import AT_LEAST_0, Lines, Malformed, Only, between, members

# The largest that nodes of ours send are 64 KiB of output, every byte of which JSON may write as six.
MOST_BYTES = 1 << 19
# What a process can end with, negative for a signal (signal(7)).
_Status = Annotated[int, between(-64, 255)]
_Seconds = _Rate = Annotated[float, AT_LEAST_0]
# As `runtime.edges.log_tail` cuts them: what follows a line's end, or a return, would look like another's.
_ONE_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)?")
_Piece = Annotated[Lines, Only("a line, or a part of one", lambda piece: bool(_ONE_LINE.fullmatch(piece)))]
_Calls = Annotated[
    tuple[Call, ...], Only(f"at most {MOST_CALLS} calls", lambda calls: len(calls) <= MOST_CALLS)
]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A rank that has not ended, and the kernel's letter for its process."""

    rank: int
    state: str


_KINDS: Mapping[str, Mapping[str, Any]] = {
    "facts": {"facts": Facts},
    "listening": {"address": Address, "port": Port},
    "reached": {"reached": tuple[Reach, ...]},
    "ssh_reached": {"ssh_reached": tuple[Reach, ...]},
    "surveyed": {"survey": Survey},
    "files": {"files": Files},
    "intruded": {"intrusion": Intrusion},
    "clock": {"now": float},
    "computed": {"rate": _Rate},
    "written": {"rate": _Rate, "problem": str},
    "serving": {"address": Address, "port": Port},
    "measured": {"result": PairResult},
    "certified": {"problem": str},
    "looked": {"standing": tuple[Standing, ...]},
    "lines": {"rank": int, "pieces": tuple[_Piece, ...]},
    "failing": {"rank": int},
    "exit": {
        "rank": int,
        "status": _Status,
        "age": _Seconds,
        "tail": tuple[str, ...],
        "calls": _Calls,
    },
    "ended": {"ok": bool, "status": _Status, "tail": tuple[str, ...]},
    "pong": {},
}


def read(
    line: bytes,
    *,
    host: str,
    ranks: Collection[int],
    shown: Collection[int] | None = None,
    nodes: Collection[str] | None = None,
) -> Frame | None:
    """The frame of a line from `host`, its values of the types that were agreed; None for other output.

    A line without its end is the rest of one that was cut off with the channel.

    Args:
        shown: the ranks whose output was asked for; None: all.
        nodes: the nodes of the job, of which alone a node is asked; None: whatever it names.

    Raises:
        Malformed: it begins as a frame and is none of ours, or speaks for another node or its ranks, or tells
            what nobody asked for.
    """
    text = line.decode(errors="replace")
    if not text.startswith(MARK) or (not text.endswith("\n") and len(line) < MOST_BYTES):
        return None
    frame = decode(text)
    if frame is None:
        raise Malformed(f"{len(line)} bytes that are no frame")
    kind = frame["kind"]
    if not isinstance(kind, str) or kind not in _KINDS:
        raise Malformed("a frame of an unknown kind")
    values = members(_KINDS[kind], {name: value for name, value in frame.items() if name != "kind"})
    if strangers := set(_spoken_for(kind, values)) - {host, *ranks}:
        raise Malformed(f"{kind!r} for {', '.join(sorted(map(str, strangers)))}, which is not there")
    if nodes is not None and (odd := _odd(kind, values, set(nodes))):
        raise Malformed(f"{kind!r} about other nodes than it was asked for: {', '.join(sorted(odd))}"[:200])
    if kind == "lines" and shown is not None and values["rank"] not in shown:
        raise Malformed(f"output of rank {values['rank']}, which is not to be shown")
    return {"kind": kind, **values}


def _spoken_for(kind: str, values: Mapping[str, Any]) -> Iterator[str | int]:
    """The ranks and the nodes whose word the frame claims to be."""
    if kind in ("lines", "failing", "exit"):
        yield values["rank"]
    elif kind == "looked":
        yield from (one.rank for one in values["standing"])
    elif kind in ("reached", "ssh_reached"):
        yield from (one.source for one in values[kind])
    elif kind == "measured":
        yield values["result"].source


def _odd(kind: str, values: Mapping[str, Any], nodes: set[str]) -> set[str]:
    """The nodes that a frame tells of without being asked; of a survey also those that it leaves out."""
    if kind == "surveyed":
        return nodes ^ set(values["survey"].addresses_by_name)
    if kind in ("reached", "ssh_reached"):
        return {one.target for one in values[kind]} - nodes
    return {values["result"].target} - nodes if kind == "measured" else set()
