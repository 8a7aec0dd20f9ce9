"""Ranks exchange JSON: no rank makes another run code, and what is no JSON is named on every rank."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import runtime
from runtime.comm.exchange import all_gather_json, broadcast_json, gather_json
from runtime.comm.group import shutdown
from runtime.errors import GroupFailed
from runtime.topology import Topology
from runtime.train.checkpoint.agree import from_first, gather
from tests.conftest import RecordRefusal
from tests.distributed.conftest import Ranks

pytestmark = pytest.mark.distributed


class Attack:
    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def exchange(topology: Topology) -> tuple[Any, ...]:
    group = runtime.init_distributed(timeout_seconds=60)
    mine = {"rank": topology.rank, "text": "\u00e9" * topology.rank, "list": [1.5, None, (True,)]}
    told = all_gather_json(mine), gather_json(topology.rank), broadcast_json(mine)
    refused = []
    for value in (object() if topology.rank else 1, float("nan")):
        with pytest.raises(GroupFailed) as failed:
            all_gather_json(value)
        refused.append(failed.value.found)
    with pytest.raises(GroupFailed) as failed:
        broadcast_json(object() if topology.rank == 0 else 1)
    shutdown(group)
    return *told, refused, failed.value.found


def test_every_rank_hears_every_value_and_what_is_none(ranks: Ranks) -> None:
    values = [{"rank": r, "text": "\u00e9" * r, "list": [1.5, None, [True]]} for r in range(2)]

    first, second = ranks(exchange, 2, timeout_seconds=300)

    assert first[:3] == (values, [0, 1], values[0])
    assert second[:3] == (values, [], values[0])
    assert first[3] == second[3] == ["rank 1 has one which is no JSON", "rank 0 has one which is no JSON"]
    assert first[4] == second[4] == "rank 0 has one which is no JSON"


def hear_a_stranger(topology: Topology, canary: str) -> str:
    """Rank 1 speaks as `all_gather_object` and `broadcast_object_list` do, and sends a pickle."""
    group = runtime.init_distributed(timeout_seconds=60)
    sent = torch.frombuffer(bytearray(pickle.dumps(Attack(canary))), dtype=torch.uint8)
    said = ""
    if topology.rank == 1:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
        dist.all_gather(sizes, torch.tensor([len(sent)]))
        longest = int(max(sizes))
        rows = [torch.empty(longest, dtype=torch.uint8) for _ in range(2)]
        dist.all_gather(rows, torch.cat([sent, torch.zeros(longest - len(sent), dtype=torch.uint8)]))
    else:
        try:
            said = str(gather("x"))
        except Exception as e:
            said = f"{type(e).__name__}: {e}"
    shutdown(group)
    return said


@pytest.mark.attack("rank")
def test_a_pickle_from_another_rank_is_not_run(
    ranks: Ranks, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    said, _ = ranks(hear_a_stranger, 2, str(tmp_path / "ran"), timeout_seconds=300)

    record_refusal(said)
    assert not (tmp_path / "ran").exists()
    assert said.startswith("GroupFailed: exchange values between ranks: what rank 1 sent is no JSON")


def hear_the_first(topology: Topology, canary: str) -> str:
    group = runtime.init_distributed(timeout_seconds=60)
    sent = torch.frombuffer(bytearray(pickle.dumps(Attack(canary))), dtype=torch.uint8)
    said = ""
    if topology.rank == 0:
        dist.broadcast(torch.tensor([len(sent)]), src=0)
        dist.broadcast(sent, src=0)
    else:
        try:
            said = str(from_first(None))
        except Exception as e:
            said = f"{type(e).__name__}: {e}"
    shutdown(group)
    return said


@pytest.mark.attack("rank")
def test_a_pickle_from_the_first_rank_is_not_run(
    ranks: Ranks, tmp_path: Path, record_refusal: RecordRefusal
) -> None:
    _, said = ranks(hear_the_first, 2, str(tmp_path / "ran"), timeout_seconds=300)

    record_refusal(said)
    assert not (tmp_path / "ran").exists()
    assert said.startswith("GroupFailed: exchange values between ranks: what rank 0 sent is no JSON")
