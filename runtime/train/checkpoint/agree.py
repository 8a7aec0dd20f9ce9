"""Acting on disks from many ranks: agree on failure before the next collective; know who shares a disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from runtime.comm.exchange import all_gather_json, broadcast_json, gather_json, receive, send
from runtime.errors import CheckpointFailed, RuntimeFault
from runtime.topology import Topology
from runtime.train.checkpoint.manifest import word
from runtime.train.parallel.dims import Axis

T = TypeVar("T")
Peers = dist.ProcessGroup | None  # all ranks; the training's own group where None
CHUNK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Which ranks see the same folder. `leaders[rank]` is the rank that acts on a rank's disk."""

    leaders: tuple[int, ...]
    rank: int

    @property
    def leads(self) -> bool:
        """Whether this rank acts on its disk."""
        return self.leaders[self.rank] == self.rank

    @property
    def all_leaders(self) -> list[int]:
        """One rank for each disk, in order."""
        return sorted(set(self.leaders))

    def mates(self) -> list[int]:
        """The ranks that see this rank's disk."""
        return [rank for rank, leader in enumerate(self.leaders) if leader == self.leaders[self.rank]]


def gather(value: T, peers: Peers = None) -> list[T]:
    """Every rank's value, on every rank. It is JSON: text, numbers, lists, mappings by text."""
    return all_gather_json(value, peers)


def gather_to_first(value: T, peers: Peers = None) -> list[T]:
    """Every rank's value, on rank 0, and nothing on the others; JSON as for `gather`."""
    return gather_json(value, peers)


def from_first(value: T, peers: Peers = None) -> T:
    """Rank 0's value, on every rank; JSON as for `gather`."""
    made: T = broadcast_json(value, peers)
    return made


def all_do(asked: str, act: Callable[[], T], *, fix: str, topology: Topology, peers: Peers = None) -> T:
    """Runs `act` on every rank; when it fails on one, every rank raises and names it.

    Raises:
        CheckpointFailed: with each failing rank, its host and its error.
    """
    result, fault = _attempt(act)
    faults = gather(f"rank {topology.rank} on {topology.hostname}: {fault}" if fault else "", peers)
    found = "; ".join(dict.fromkeys(fault for fault in faults if fault))
    if found:
        raise CheckpointFailed(asked, found=found, fix=fix)
    assert result is not None
    return result[0]


def _attempt(act: Callable[[], T]) -> tuple[tuple[T] | None, str]:
    try:
        return (act(),), ""
    except OSError as e:
        return None, f"{e.strerror}: {e.filename}" if e.strerror and e.filename else e.strerror or str(e)
    except (RuntimeFault, ValueError) as e:
        return None, e.found if isinstance(e, RuntimeFault) else str(e)
    except Exception as e:  # what only one rank meets, all have to hear of
        return None, f"{type(e).__name__}: {e}"


def find_disks(root: Path, session: str, ranks: Axis, topology: Topology, peers: Peers = None) -> Disks:
    """Which ranks share a disk: each leaves a mark in the folder and reads the others'.

    Raises:
        CheckpointFailed: a rank cannot write into the folder.
    """
    mark = root / f".{word(session, 'the session')}.{ranks.rank}.mark"

    def leave() -> None:
        root.mkdir(parents=True, exist_ok=True)
        mark.write_bytes(b"")

    fix = "Choose a folder that every rank can write to."
    try:
        all_do(f"save to {root}", leave, fix=fix, topology=topology, peers=peers)
        os.listdir(root)  # a network file system looks names up afresh after the folder was read
        seen = min(r for r in range(ranks.size) if (root / f".{session}.{r}.mark").exists())
        leaders = gather(seen, peers)
    finally:
        mark.unlink(missing_ok=True)
    return Disks(leaders=tuple(leaders), rank=ranks.rank)


def send_file(
    source: Path, target: Path, *, sender: int, receiver: int, rank: int, size: int, peers: Peers = None
) -> OSError | None:
    """Copies a file from one rank's disk to another's; the others do nothing.

    A disk that fails does not end the conversation, so that neither rank waits for the other: the first error
    is returned after the last chunk.
    """
    if rank == sender:
        return _send(source, receiver, size, peers)
    return _receive(target, sender, size, peers) if rank == receiver else None


def raise_first(faults: Iterable[OSError | None]) -> None:
    """Raises the first error of many transfers, after all of them."""
    fault = next((fault for fault in faults if fault is not None), None)
    if fault is not None:
        raise fault


def _send(source: Path, receiver: int, size: int, peers: Peers) -> OSError | None:
    fault: OSError | None = None
    offset = 0
    while offset < size:
        chunk = torch.zeros(min(CHUNK_BYTES, size - offset), dtype=torch.uint8)
        try:
            with source.open("rb") as file:
                file.seek(offset)
                file.readinto(chunk.numpy().data)
        except OSError as e:
            fault = fault or e
        send(chunk, receiver, peers)
        offset += len(chunk)
    return fault


def _receive(target: Path, sender: int, size: int, peers: Peers) -> OSError | None:
    fault: OSError | None = None
    offset = 0
    while offset < size:
        chunk = torch.empty(min(CHUNK_BYTES, size - offset), dtype=torch.uint8)
        receive(chunk, sender, peers)
        try:
            if offset == 0:
                target.unlink(missing_ok=True)
            with target.open("ab" if offset else "xb") as file:
                file.write(chunk.numpy().data)
        except OSError as e:
            fault = fault or e
        offset += len(chunk)
    return fault
