"""The calls that a rank remembers: dumps of PyTorch's flight recorder (format 2.x), of NCCL and of Gloo.

PyTorch's own reader (torch.distributed.flight_recorder) fails on Gloo's: their `pg_config` names no group.
NCCL's watchdog writes a pickle, of which plain values only are read; what recorder.py keeps is JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.errors import BadInput
from runtime.untrusted.documents import mapping, parse, text, whole
from runtime.untrusted.files import read_plain
from runtime.untrusted.pickles import PlainUnpickler

# As much as NCCL's recorder keeps by default, 2,000 calls with the stack of each, several times over.
_LIMIT_BYTES, _MOST_OPERATIONS = 16 * 1024 * 1024, 2_000_000
# Of a rank's calls, what its node sends to the launcher.
MOST_CALLS = 50
# All that are missing below a rank are named: more ranks than any cluster has would take all memory.
_MOST_RANKS = 1 << 20
# Frames of these are how a call was carried out, not who made it.
_BELOW = ("/torch/", "/runtime/comm/", "/runtime/train/", "/deepspeed/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One collective of one rank. `number` counts those of its group; `at` is the line that made it.

    `shape` tells sizes and types, in words that are equal on ranks that do the same. `state` is `completed`,
    `started` or `scheduled`; Gloo's stays `scheduled`. `created` is in seconds since 1970.
    """

    group: str
    number: int
    operation: str
    shape: str
    state: str
    at: str
    created: float

    @property
    def words(self) -> str:
        """What, and where in the program."""
        return f"{self.operation} of {self.shape}{f' at {self.at}' if self.at else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What one rank remembers, in the order of its calls."""

    rank: int
    calls: tuple[Call, ...]


def find_dumps(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files, and those of the folders whose names end with a rank's number.

    Raises:
        BadInput: there is none.
    """
    given = tuple(paths)
    found = [
        path
        for one in given
        for path in (sorted(one.iterdir()) if one.is_dir() else [one])
        if path.is_file() and _rank_of(path) is not None and (not one.is_dir() or "flight" in path.name)
    ]
    if not found:
        raise BadInput(
            f"read what ranks remember from {', '.join(map(str, given))}",
            found="no file whose name ends with a rank's number (flight_rank0, flight_rank1, ...)",
            fix="Give the logs folder of a job that zerorun started.",
        )
    return tuple(found)


def read_dump(path: Path) -> Dump:
    """A dump from a file.

    Raises:
        BadInput: it is none, or of another format.
    """
    try:
        values = _values(read_plain(path, _LIMIT_BYTES))
        rank = _rank_of(path) or 0
        if rank >= _MOST_RANKS:
            raise ValueError(f"its name says rank {rank}, and ranks below {_MOST_RANKS} are read")
        version = text(values["version"], "its format", most=20)
        if version.split(".")[0] != "2":
            raise ValueError(f"it has format {version}")
        calls = tuple(_call(entry) for entry in values["entries"] if not entry.get("is_p2p"))
        now = _at(values.get("now") or ())
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
        raise BadInput(
            f"read what a rank remembers from {path}",
            found=str(e) or type(e).__name__,
            fix="Give dumps of torch.distributed's flight recorder, format 2.x.",
        ) from e
    in_order = sorted(calls, key=lambda call: call.created)
    if in_order and not in_order[-1].at:
        in_order[-1] = replace(in_order[-1], at=now)
    return Dump(rank=rank, calls=tuple(in_order))


def _values(content: bytes) -> dict[str, Any]:
    if content.startswith(b"{"):
        return mapping(parse(content, limit_bytes=_LIMIT_BYTES), "it")
    return mapping(_Reader(content, operations=_MOST_OPERATIONS).read_all(), "it")


class _Reader(PlainUnpickler):
    what = "a dump"


def _rank_of(path: Path) -> int | None:
    match = re.search(r"(\d+)$", path.name)
    return int(match[1]) if match else None


def _call(entry: Mapping[str, Any]) -> Call:
    backend, _, operation = text(entry["profiling_name"], "a call").partition(":")
    return Call(
        group=text(entry["process_group"][0], "a group"),
        number=whole(entry["collective_seq_id"], "a call's number"),
        operation=operation or backend,
        shape=_shape(entry),
        state=text(entry["state"], "a state"),
        at=_at(entry.get("frames") or ()),
        created=whole(entry["time_created_ns"], "a time") / 1e9,
    )


def _shape(entry: Mapping[str, Any]) -> str:
    pairs = zip(entry["input_sizes"], entry["input_dtypes"], strict=False)
    sizes = [f"{[whole(n, 'a size') for n in size]} {text(kind, 'a type', most=80)}" for size, kind in pairs]
    return ", ".join(sizes) or "nothing"


def _at(frames: Iterable[Mapping[str, Any]]) -> str:
    """The innermost line that is not a library's."""
    for frame in frames:
        file = text(frame["filename"], "a file's name")
        if not any(part in file for part in _BELOW):
            return f"{file}:{whole(frame['line'], 'a line')} ({text(frame['name'], 'a function')})"
    return ""
