"""A folder that DeepSpeed saved: all its files found, read and found to belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from runtime.errors import BadInput, CheckpointFailed
from runtime.train.checkpoint.deepspeed.pickles import Inert, read
from runtime.train.checkpoint.folder import read_latest

_OPTIMIZER = re.compile(r"(?P<prefix>\w*?zero_pp_rank)_(?P<rank>\d+)_mp_rank_(?P<model>\d+)_optim_states\.pt")
_MOST_NAMED = 64  # files that are missing
_ASK_THERE = "Save it again there, or take an earlier checkpoint."


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one rank kept: flat masters by number, flat states by number and kind, and options of groups."""

    masters: Sequence[torch.Tensor]
    states: Mapping[int, Mapping[str, Any]]
    groups: Sequence[Mapping[str, Any]]
    content: Mapping[str, Any]

    def flat(self, number: int, kind: str) -> torch.Tensor:
        """A flat tensor: the masters, or a state of the optimizer."""
        found = self.masters[number] if kind == "" else self.states[number][kind]
        assert isinstance(found, torch.Tensor)
        return found

    def steps(self) -> list[int]:
        """The optimizer's step counts, one for each flat tensor that has one."""
        return [int(state["step"]) for _, state in sorted(self.states.items()) if "step" in state]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint of DeepSpeed; `models` are the model states of rank 0, in stage 3 of every rank."""

    folder: Path
    stage: int
    parts: Sequence[Part]
    models: Sequence[Mapping[str, Any]]

    @property
    def model(self) -> Mapping[str, Any]:
        """The model states of rank 0."""
        return self.models[0]


def is_deepspeed(root: Path) -> bool:
    """Whether DeepSpeed has saved into the folder, or the folder is one of its checkpoints."""
    return any(
        _OPTIMIZER.fullmatch(path.name) for pattern in ("*.pt", "*/*.pt") for path in root.glob(pattern)
    )


def open_source(path: Path) -> Source:
    """Reads a checkpoint, or the one that `latest` in the folder names.

    Raises:
        BadInput: there is none of ZeRO stages 1 to 3 with data parallelism alone.
        CheckpointFailed: a file is missing or damaged, or the files are of different saves.
    """
    folder = path / (read_latest(path) or "")
    names = _by_rank(folder)
    first = read(folder / next(iter(names.values())))
    stage, ranks = _int(_state(first, folder)["zero_stage"]), _partitions(_state(first, folder))
    _check_ranks(folder, names, ranks)
    parts = [_part(read(folder / names[rank]), stage, folder) for rank in range(ranks)]
    models = [read(folder / name) for name in _model_files(stage, ranks)]
    source = Source(folder=folder, stage=stage, parts=parts, models=models)
    _check_together(source)
    return source


def _by_rank(folder: Path) -> dict[int, str]:
    found = [m for path in sorted(folder.glob("*.pt")) if (m := _OPTIMIZER.fullmatch(path.name))]
    if not found:
        raise BadInput(
            f"import {folder}",
            found="it has no file of DeepSpeed's ZeRO (zero_pp_rank_*_optim_states.pt)",
            fix="Give the folder that was passed to DeepSpeed's save_checkpoint, or one checkpoint in it.",
        )
    if any(int(one["model"]) for one in found):
        raise BadInput(
            f"import {folder}",
            found="it was saved with tensor or pipeline parallelism",
            fix="Only data parallelism (ZeRO) is imported.",
        )
    return {int(one["rank"]): one[0] for one in found}


def _check_ranks(folder: Path, names: Mapping[int, str], ranks: int) -> None:
    pattern = re.sub(r"rank_\d+_mp", "rank_{}_mp", next(iter(names.values())))
    lacking = (rank for rank in range(ranks) if rank not in names)  # as many as a file says
    missing = [pattern.format(rank) for rank in islice(lacking, _MOST_NAMED)]
    if more := ranks - sum(rank < ranks for rank in names) - len(missing):
        missing.append(f"and {more} more")
    foreign = [name for rank, name in names.items() if rank >= ranks]
    if missing or foreign:
        parts = [("is missing", missing), (f"is there besides those of {ranks} ranks", foreign)]
        found = "; ".join(f"{', '.join(files)} {what}" for what, files in parts if files)
        raise CheckpointFailed(f"import {folder}", found=found, fix=_ASK_THERE)


def _model_files(stage: int, ranks: int) -> list[str]:
    if stage < 3:
        return ["mp_rank_00_model_states.pt"]
    return [f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in range(ranks)]


def _state(content: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    state = content.get("optimizer_state_dict")
    if not isinstance(state, Mapping) or "zero_stage" not in state or "partition_count" not in state:
        raise BadInput(
            f"import {folder}",
            found="its optimizer's states are not those of ZeRO stages 1 to 3",
            fix="Load it with the engine that saved it, and export its weights.",
        )
    return state


def _part(content: Mapping[str, Any], stage: int, folder: Path) -> Part:
    state = _state(content, folder)
    base = state["optimizer_state_dict" if stage == 3 else "base_optimizer_state"]
    if not isinstance(base, Mapping):
        raise BadInput(
            f"import {folder}",
            found="it was saved with zero_optimization.elastic_checkpoint",
            fix="Save it without, once, in DeepSpeed.",
        )
    masters = state["fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"]
    return Part(masters=masters, states=base["state"], groups=base["param_groups"], content=state)


def _check_together(source: Source) -> None:
    """An overwritten checkpoint whose save broke off has files of two steps, which DeepSpeed does not see."""
    asked = f"import {source.folder}"
    _same(asked, "the optimizer's step", [part.steps() for part in source.parts])
    _same(asked, "global_steps", [model["global_steps"] for model in source.models])


def _same(asked: str, what: str, values: Iterable[Any]) -> None:
    listed = list(values)
    other = next((rank for rank, value in enumerate(listed) if value != listed[0]), None)
    if other is not None:
        found = f"files of two saves: {what} is {listed[0]} on rank 0 and {listed[other]} on rank {other}"
        raise CheckpointFailed(asked, found=found, fix=_ASK_THERE)


def _partitions(state: Mapping[str, Any]) -> int:
    count = state["partition_count"]
    return max(count) if isinstance(count, list | tuple) else int(count)


def _int(value: Any) -> int:
    return int(value.arguments[0] if isinstance(value, Inert) else value)
