"""Reading DeepSpeed's files: every byte checked against the archive's CRC-32, and no code of theirs run."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from runtime.errors import CheckpointFailed
from runtime.train.checkpoint.archive import check_archive

_OF_VALUES = (ValueError, TypeError, AttributeError, EOFError)
_FIX = "Bring the file again from where it was saved, or take an earlier checkpoint."


class Inert:
    """Stands for an object whose class is not loaded: its arguments and state, no behaviour."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __new__(cls, *arguments: Any) -> Inert:
        made = object.__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read(path: Path) -> dict[str, Any]:
    """What a file holds, tensors mapped from it.

    torch.load maps them, and its `weights_only` makes no object but those that stand for one. Before that,
    the file is gone through without: it takes no more memory than it has bytes.

    Raises:
        CheckpointFailed: it is missing, cut off or altered, or its pickle is not one that can be read safely.
    """
    try:
        check_archive(path)
        names = get_unsafe_globals_in_checkpoint(path)
        stand_ins = [(type(name.rpartition(".")[2], (Inert,), {}), name) for name in names]
        with safe_globals(stand_ins):  # type: ignore[arg-type]
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError as e:
        raise _failed(path, "it is missing") from e
    except (pickle.UnpicklingError, OSError, RuntimeError, LookupError, *_OF_VALUES) as e:
        [first, *_] = str(e).splitlines() or [type(e).__name__]
        raise _failed(path, f"it cannot be read safely ({first})") from e
    if not isinstance(content, dict):
        raise _failed(path, "it is none of DeepSpeed's files")
    return content


def loadable(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The entries that are plain data, and the names of those that hold an object."""
    left_out = [name for name, value in content.items() if any(_inert(value))]
    return {name: value for name, value in content.items() if name not in left_out}, left_out


def _inert(value: Any) -> Iterator[Inert]:
    if isinstance(value, Inert):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _inert(key)
            yield from _inert(one)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _inert(one)


def _failed(path: Path, found: str) -> CheckpointFailed:
    return CheckpointFailed(f"read {path}", found=found, fix=_FIX)
