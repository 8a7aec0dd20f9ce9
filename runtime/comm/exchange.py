"""What ranks tell each other: JSON in tensors of bytes, so that no rank can make another run its code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from runtime.errors import GroupFailed
from runtime.untrusted.documents import parse

LIMIT_BYTES = 64 * 1024 * 1024  # of what one rank says
Peers = dist.ProcessGroup | None  # all ranks where None
_NOT_SAID = -1


def all_gather_json(value: object, group: Peers = None) -> list[Any]:
    """Every rank's value, on every rank; tuples arrive as lists. Collective.

    Raises:
        GroupFailed: a rank's value is no JSON, or larger than the limit; every rank raises it.
    """
    said, device = _bytes_of(value), _device(group)
    sizes = _sizes(said, device, group)
    rows = torch.empty(len(sizes), max(sizes), dtype=torch.uint8, device=device)
    dist.all_gather(list(rows), _row(said, max(sizes), device), group=group)
    return [_value(row[:size], rank) for rank, (row, size) in enumerate(zip(rows, sizes, strict=True))]


def gather_json(value: object, group: Peers = None) -> list[Any]:
    """Every rank's value, on the first rank; nothing on the others. Collective, see `all_gather_json`."""
    said, device = _bytes_of(value), _device(group)
    sizes = _sizes(said, device, group)
    first = dist.get_rank(group) == 0
    rows = torch.empty(len(sizes) if first else 0, max(sizes), dtype=torch.uint8, device=device)
    dist.gather(_row(said, max(sizes), device), list(rows) if first else None, group_dst=0, group=group)
    return [_value(row[:size], rank) for rank, (row, size) in enumerate(zip(rows, sizes, strict=False))]


def broadcast_json(value: object, group: Peers = None) -> Any:
    """The first rank's value, on every rank. Collective, see `all_gather_json`."""
    first, device = dist.get_rank(group) == 0, _device(group)
    said = _bytes_of(value) if first else b""
    size = torch.tensor([_size(said)], device=device)
    dist.broadcast(size, group=group, group_src=0)
    _check([int(size)])
    row = _row(said, int(size), device) if first else torch.empty(int(size), dtype=torch.uint8, device=device)
    dist.broadcast(row, group=group, group_src=0)
    return _value(row, 0)


def send(tensor: torch.Tensor, receiver: int, group: Peers = None) -> None:
    """Sends a tensor to a rank of the group, which has to `receive` it."""
    dist.send(tensor, group=group, group_dst=receiver)


def receive(tensor: torch.Tensor, sender: int, group: Peers = None) -> None:
    """Fills the tensor with what a rank of the group sends."""
    dist.recv(tensor, group=group, group_src=sender)


def _bytes_of(value: object) -> bytes | None:
    """The value as JSON; None where it is none, so that all ranks hear of it before they wait for it."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _size(said: bytes | None) -> int:
    return _NOT_SAID if said is None else len(said)


def _sizes(said: bytes | None, device: torch.device, group: Peers) -> list[int]:
    sizes = torch.empty(dist.get_world_size(group), 1, dtype=torch.int64, device=device)
    dist.all_gather(list(sizes), torch.tensor([_size(said)], device=device), group=group)
    listed: list[int] = sizes[:, 0].tolist()
    _check(listed)
    return listed


def _check(sizes: Sequence[int]) -> None:
    for rank, size in enumerate(sizes):
        if not 0 < size <= LIMIT_BYTES:
            found = "which is no JSON" if size == _NOT_SAID else f"of {size} bytes"
            raise GroupFailed(
                "exchange values between ranks",
                found=f"rank {rank} has one {found}",
                fix=f"Only JSON of at most {LIMIT_BYTES} bytes is exchanged; see what that rank runs.",
            )


def _row(said: bytes | None, size: int, device: torch.device) -> torch.Tensor:
    row = bytearray(said or b"").ljust(size, b" ")
    return torch.frombuffer(row, dtype=torch.uint8).to(device)


def _value(row: torch.Tensor, rank: int) -> Any:
    try:
        return parse(row.cpu().numpy().tobytes(), limit_bytes=LIMIT_BYTES)
    except ValueError as e:
        raise GroupFailed(
            "exchange values between ranks",
            found=f"what rank {rank} sent is no JSON: {e}",
            fix="See what that rank runs: its processes have all to be of this job.",
        ) from e


def _device(group: Peers) -> torch.device:
    """Where the group's backend takes tensors from."""
    if "cpu:" in dist.get_backend_config(group):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
