"""A delivery that is cut off anywhere: nothing that was verified is lost, and no wrong tree is ever whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from provision.store.node.manifest import CHUNK_BYTES
from provision.store.node.tree import differences
from provision.store.source import FolderSource
from tests.unit.provision.store.many_nodes import ManyNodes, model

POINTS, IN_GATE = 20, 3
SIZE = 48 << 20


def deliver(many: ManyNodes, source: FolderSource) -> None:
    many.deliver(source, bytes_per_second=60e6, lost_seconds=15)


def whole(many: ManyNodes, source: FolderSource) -> list[str]:
    """Nodes where something has the place of the tree; it has to be the tree then."""
    there = [name for name in many.names if many.tree(name, source).exists()]
    for name in there:
        assert differences(str(many.tree(name, source)), source.manifest, full=True, threads=2) == []
    return there


def chunks_here(many: ManyNodes, name: str, source: FolderSource) -> int:
    record = many.store(name) / "partial" / source.digest / "have"
    if many.tree(name, source).exists():
        return len(source.manifest.chunks)
    return sum(record.read_bytes()) if record.exists() else 0


# The first of each kind is in the gate; each of the others asks the same at another moment.
@pytest.mark.parametrize(
    "point", [pytest.param(n, marks=pytest.mark.long if n >= IN_GATE else ()) for n in range(POINTS)]
)
def test_what_was_verified_is_not_sent_again(tmp_path: Path, point: int) -> None:
    """The controller is killed, or a node's part, or a connection between nodes, somewhere in a delivery."""
    draw = random.Random(point)
    many = ManyNodes(tmp_path, ["te1", "te2", "te3"])
    source = model(tmp_path / "model", SIZE, 100_000)
    after, what = draw.uniform(0.15, 1.3), ("controller", "node", "interrupt")[point % 3]

    if what == "node":
        victim = draw.choice(many.names)
        threading.Timer(after, many.stop, [victim]).start()
        ended = many.deliver(source, bytes_per_second=60e6, lost_seconds=15)
        again = {name: said.got for name, said in ended.said.items()}
        sent = ended.source_bytes
        # Of a node that began again only its second part's bytes are told; each neighbour lost one chunk.
        assert sent <= source.manifest.bytes + 2 * CHUNK_BYTES
        assert all(got <= source.manifest.bytes + 2 * CHUNK_BYTES for got in again.values())
    else:
        child = multiprocessing.get_context("fork").Process(target=deliver, args=(many, source))
        child.start()
        time.sleep(after)
        os.kill(child.pid or 0, signal.SIGKILL if what == "controller" else signal.SIGINT)
        child.join()
        whole(many, source)
        before = {name: chunks_here(many, name, source) for name in many.names}
        ended = many.deliver(source)
        for name, said in ended.said.items():
            there = sum(chunk.size for chunk in source.manifest.chunks[: before[name]])
            assert said.got <= source.manifest.bytes - there + CHUNK_BYTES

    assert ended.lost == {}
    assert whole(many, source) == many.names
