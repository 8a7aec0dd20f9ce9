"""The calls that a rank remembers: dumps of PyTorch's flight recorder (format 2.x), of NCCL and of Gloo.

PyTorch's own reader (torch.distributed.flight_recorder) fails on Gloo's: their `pg_config` names no group.
A dump is a pickle. It holds plain values only, and nothing else is loaded from it.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.errors import BadInput

# Frames of these are how a call was carried out, not who made it.
_BELOW = ("/torch/", "/runtime/comm/", "/runtime/zero/", "/deepspeed/")


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
        values: dict[str, Any] = _PlainValues(io.BytesIO(path.read_bytes())).load()
        if str(values["version"]).split(".")[0] != "2":
            raise ValueError(f"it has format {values['version']}")
        calls = tuple(_call(entry) for entry in values["entries"] if not entry.get("is_p2p"))
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, KeyError, TypeError, IndexError) as e:
        raise BadInput(
            f"read what a rank remembers from {path}",
            found=str(e) or type(e).__name__,
            fix="Give dumps of torch.distributed's flight recorder, format 2.x.",
        ) from e
    in_order = sorted(calls, key=lambda call: call.created)
    if in_order and not in_order[-1].at:
        in_order[-1] = replace(in_order[-1], at=_at(values.get("now") or ()))
    rank = _rank_of(path)
    return Dump(rank=rank if rank is not None else 0, calls=tuple(in_order))


class _PlainValues(pickle.Unpickler):
    """Lists, mappings, numbers and text need no class; a pickle that asks for one is no dump."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a dump does not hold")


def _rank_of(path: Path) -> int | None:
    match = re.search(r"(\d+)$", path.name)
    return int(match[1]) if match else None


def _call(entry: Mapping[str, Any]) -> Call:
    backend, _, operation = entry["profiling_name"].partition(":")
    return Call(
        group=str(entry["process_group"][0]),
        number=entry["collective_seq_id"],
        operation=operation or backend,
        shape=_shape(entry),
        state=entry["state"],
        at=_at(entry.get("frames") or ()),
        created=entry["time_created_ns"] / 1e9,
    )


def _shape(entry: Mapping[str, Any]) -> str:
    pairs = zip(entry["input_sizes"], entry["input_dtypes"], strict=False)
    sizes = [f"{list(size)} {kind}" for size, kind in pairs]
    return ", ".join(sizes) or "nothing"


def _at(frames: Iterable[Mapping[str, Any]]) -> str:
    """The innermost line that is not a library's."""
    for frame in frames:
        if not any(part in frame["filename"] for part in _BELOW):
            return f"{frame['filename']}:{frame['line']} ({frame['name']})"
    return ""
