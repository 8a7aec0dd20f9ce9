"""A process that used gloo leaves without an abort, however long gloo's threads hold on to their tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.comm.group import is_at_work, meeting_point
from runtime.topology import Topology

# Holds the group, as a device mesh does, so that destroying it does not end its threads; and keeps them busy
# with a collective that is over for its caller while a thread still works on it.
JOB = """
import torch, torch.distributed as dist
from runtime.comm.group import initialize, shutdown
from runtime.topology import Topology
import os
job = initialize(Topology.from_environment(os.environ))
held = dist.group.WORLD
for _ in range(3):
    out = [None]
    dist.all_gather_object(out, "x" * 100_000)
shutdown(job)
print("left", flush=True)
"""


def stat(name: str, state: str) -> str:
    return f"12 ({name}) {state} 1 1 1 0 -1"


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ([], False),
        ([stat("python", "R")], False),
        ([stat("python", "R"), stat("pt_gloo_runloop", "S")], False),
        ([stat("pt_gloo_runloop", "S"), stat("pt_gloo_runloop", "R")], True),
        ([stat("pt_gloo_runloop", "D")], True),
        ([stat("a) R (b", "S"), stat("pt_gloo_runloop", "S")], False),
    ],
)
def test_a_gloo_thread_is_at_work_unless_it_sleeps(stats: list[str], expected: bool) -> None:
    assert is_at_work(stats) is expected


@pytest.fixture(scope="module")
def slow_threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes gloo's threads, and no others, spend 20 ms before each lock that they take."""
    folder = tmp_path_factory.mktemp("slow")
    source = Path(__file__).parents[3] / "cases" / "slow_gloo_threads.c"
    built = folder / "slow.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


def test_the_interpreter_ends_only_after_gloo_has_let_go(slow_threads: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", JOB],
        env={**os.environ, "LD_PRELOAD": str(slow_threads), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (0, "left\n"), ended.stderr


def test_ranks_meet_over_ipv6() -> None:
    """Without brackets `tcp://::1:29500` names no port (torch's rendezvous: `port number missing`)."""
    topology = Topology(
        rank=0,
        local_rank=0,
        world_size=2,
        local_world_size=1,
        node_rank=0,
        master_addr="fd88::11",
        master_port=29500,
        hostname="te1",
    )

    assert meeting_point(topology) == {"init_method": "tcp://[fd88::11]:29500"}
