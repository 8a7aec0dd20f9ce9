"""The tensors of a checkpoint: each rank writes its shards and reads what it needs, by itself.

torch.distributed.checkpoint plans and writes; its ranks would exchange plans as pickles, so each plans alone,
and the lists of what was written are brought together as JSON. Reading is ours, see archive.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from inspect import signature
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor, Replicate

from runtime.train.checkpoint.archive import read_chunk
from runtime.train.checkpoint.table import Chunk, Shape, Table, Tensor
from runtime.untrusted.files import open_plain


def write_shards(
    folder: Path, rank: int, tensors: Mapping[str, torch.Tensor], planner: SavePlanner | None = None
) -> Table:
    """Writes this rank's shards into `__<rank>_0.distcp`, and returns which are where.

    Args:
        planner: makes tensors that exist only when they are written.

    Raises:
        OSError, RuntimeError: the disk refuses.
    """
    planner = planner or DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(_own(tensors)), is_coordinator=rank == 0)
    writer = FileSystemWriter(folder)
    plan = planner.finish_plan(_placed(writer, rank, planner.create_local_plan()))
    results = writer.write_data(plan, planner).wait()
    return _written(plan.items, results)


def _placed(writer: FileSystemWriter, rank: int, plan: SavePlan) -> SavePlan:
    """A rank's plan, with the names of its files.

    The writer of torch 2.6 is told of ranks by the order of their plans alone.
    """
    if "kwargs" in signature(writer.set_up_storage_writer).parameters:
        writer.set_up_storage_writer(rank == 0, rank=rank, use_collectives=False)
        return writer.prepare_local_plan(plan)
    writer.set_up_storage_writer(rank == 0)
    return writer.prepare_global_plan([writer.prepare_local_plan(plan)] * (rank + 1))[rank]


def read_shards(folder: Path, table: Table, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fills tensors, sharded in whatever way, with what the checkpoint holds under their names.

    Raises:
        OSError: a file cannot be read.
        ValueError: a shard is damaged, or is not what the table says.
    """
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), _metadata({name: table[name] for name in tensors}), True)
    chunks = {(name, c.offsets): c for name in tensors for c in table[name].chunks}
    wanted: dict[Chunk, list[ReadItem]] = {}
    for item in planner.create_local_plan().items:
        wanted.setdefault(chunks[_key(item)], []).append(item)
    in_order = sorted(wanted, key=lambda chunk: (chunk.file, chunk.start))
    for name, of_file in groupby(in_order, key=lambda chunk: chunk.file):
        with open_plain(folder / name) as file:
            for chunk in of_file:
                items = wanted[chunk]
                _fill(planner, read_chunk(file, chunk, table[_key(items[0])[0]].dtype), items)


def _fill(planner: LoadPlanner, chunk: torch.Tensor, items: Iterable[ReadItem]) -> None:
    for item in items:
        part = chunk[tuple(slice(o, o + n) for o, n in zip(item.storage_offsets, item.lengths, strict=True))]
        planner.resolve_tensor(item).detach().copy_(part)


def _key(item: ReadItem) -> tuple[str, Shape]:
    return item.storage_index.fqn, tuple(item.storage_index.offset or ())


def _own(tensors: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, torch.Tensor]]:
    """What this rank writes: ranks that hold the same shards share them evenly; all reckon the same."""
    planned: dict[int, list[tuple[int, int]]] = {}
    for name, tensor in tensors.items():
        copies, ours = _copy(tensor)
        loads = planned.setdefault(copies, [(0, copy) for copy in range(copies)])
        load, writer = loads[0]
        heapq.heapreplace(loads, (load + tensor.numel(), writer))
        if writer == ours:
            yield name, tensor


def _copy(tensor: torch.Tensor) -> tuple[int, int]:
    """How many ranks hold this shard, and which of them this is."""
    copies = ours = 1
    if not isinstance(tensor, DTensor):
        return copies, 0
    place = tensor.device_mesh.get_coordinate() or ()
    ours = 0
    for placement, size, at in zip(tensor.placements, tensor.device_mesh.shape, place, strict=True):
        if isinstance(placement, Replicate):
            copies, ours = copies * size, ours * size + at
    return copies, ours


def _written(items: Iterable[WriteItem], results: Iterable[WriteResult]) -> Table:
    places = {result.index: result.storage_data for result in results}
    tensors: dict[str, Tensor] = {}
    for item in items:
        about, place = item.tensor_data, places[item.index]
        assert about is not None  # only tensors are written
        known = tensors.get(item.index.fqn)
        chunk = _chunk(about.chunk, place)
        tensors[item.index.fqn] = Tensor(
            dtype=str(about.properties.dtype).removeprefix("torch."),
            shape=tuple(about.size),
            chunks=((*known.chunks, *chunk) if known else chunk),
        )
    return tensors


def _chunk(box: ChunkStorageMetadata, place: Any) -> tuple[Chunk, ...]:
    if not prod(box.sizes):
        return ()
    return (
        Chunk(
            file=place.relative_path,
            start=place.offset,
            length=place.length,
            offsets=tuple(box.offsets),
            sizes=tuple(box.sizes),
        ),
    )


def _metadata(table: Table) -> Metadata:
    """The table as torch's planner reads it."""
    return Metadata(
        {
            name: TensorStorageMetadata(
                properties=TensorProperties(dtype=getattr(torch, tensor.dtype)),
                size=torch.Size(tensor.shape),
                chunks=[
                    ChunkStorageMetadata(offsets=torch.Size(c.offsets), sizes=torch.Size(c.sizes))
                    for c in tensor.chunks
                ],
            )
            for name, tensor in table.items()
        }
    )
