"""A job that hangs or goes astray over Gloo: the culprit named at once, by what the ranks remember."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launching import Launcher, nodes

Launch = Callable[..., Launcher]
pytestmark = pytest.mark.distributed

TIMEOUT_SECONDS = 6
BEGIN = f"""
import os, sys, time
import runtime, torch
import torch.distributed as dist
runtime.init_distributed(timeout_seconds={TIMEOUT_SECONDS})
rank = dist.get_rank()
for _ in range(3):
    dist.all_reduce(torch.ones(4))
print("joined", flush=True)
"""
ENDLESS = BEGIN + "while True:\n    dist.all_reduce(torch.ones(4))\n    time.sleep(0.02)\n"
ASTRAY = BEGIN + "dist.broadcast(torch.ones(8), src=0) if rank == 1 else dist.all_reduce(torch.ones(4))\n"
WAITING = BEGIN.replace(f"={TIMEOUT_SECONDS}", "=300") + (
    "if rank == 2:\n    time.sleep(300)\ndist.all_reduce(torch.ones(4))\n"
)


def start(launch: Launch, folder: Path, program: str, *options: str) -> Launcher:
    (folder / "train.py").write_text(program)
    return launch(folder, *nodes(folder, 1, 1, 1), "--log-dir", str(folder / "job"), *options, "train.py")


def wait_for(ready: Callable[[], bool], timeout_seconds: float = 60) -> float:
    """The moment at which it came true."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.02)
    return time.monotonic()


def all_joined(job: Path) -> bool:
    logs = [job / "logs" / f"rank{rank}.log" for rank in range(3)]
    return all(log.exists() and "joined" in log.read_text() for log in logs)


def account(job: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((job / "job.json").read_text())
    return values


@pytest.mark.measures
def test_a_stopped_rank_is_named_within_the_time_out_and_two_seconds(launch: Launch, tmp_path: Path) -> None:
    launcher, job = start(launch, tmp_path, ENDLESS), tmp_path / "job"
    wait_for(lambda: all_joined(job))

    os.kill(int((job / "logs" / "rank1.pid").read_text()), signal.SIGSTOP)
    stopped_at = time.monotonic()
    named_at = wait_for(lambda: (job / "job.json").exists())
    ended = launcher.wait()

    assert named_at - stopped_at < TIMEOUT_SECONDS + 2
    assert ended.returncode == 1
    words = "rank 1 on 127.0.0.2 is stopped (SIGSTOP or a debugger), while ranks 0, 2 waited for it in vain"
    assert f"{words}; ending the job" in ended.stderr
    assert account(job)["cause"] == words
    assert "rank 1 left no dump: stopped, lost, or killed" in account(job)["remembered"][0]
    assert launcher.leaves_nothing()


def test_the_rank_that_made_another_call_is_named(launch: Launch, tmp_path: Path) -> None:
    launcher, job = start(launch, tmp_path, ASTRAY), tmp_path / "job"

    ended = launcher.wait()

    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if "they remember" in line]
    assert "call 4 of the group of all ranks is not the same on all ranks: ranks 0, 2: all_reduce" in line
    assert "rank 1: broadcast of [8] Float" in line
    read = subprocess.run(
        [sys.executable, "-P", "-m", "runtime", "flight", str(job / "logs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 1
    assert read.stdout.splitlines()[0] in line
    assert "train.py:" in read.stdout


def test_ranks_that_wait_in_a_collective_say_so_when_the_job_is_ended(launch: Launch, tmp_path: Path) -> None:
    launcher, job = start(launch, tmp_path, WAITING, "--timeout", "45"), tmp_path / "job"

    ended = launcher.wait(120)

    assert ended.returncode == 124
    assert {path.name for path in (job / "logs").glob("flight_rank?")} == {
        f"flight_rank{rank}" for rank in range(3)
    }
    assert "they remember: rank 2 is behind in the group of all ranks: its last was call 3" in ended.stderr
    assert launcher.leaves_nothing()


ASKED_TO_END = """
import os, signal, sys, time
from pathlib import Path
import torch
from runtime.comm.recorder import keep_flight
torch._C._distributed_c10d._dump_fr_trace_json = lambda: '{"entries": "' + 'x' * 5_000_000 + '"}'
keep_flight(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGTERM)
while True:
    time.sleep(0.001)
"""


def test_a_rank_that_is_asked_to_end_in_python_code_leaves_a_whole_dump(tmp_path: Path) -> None:
    """Its main thread and the one that waits for signals both hear of it."""
    (tmp_path / "end.py").write_text(ASKED_TO_END)

    for number in range(4):
        dump = tmp_path / f"flight_rank{number}"
        ended = subprocess.run([sys.executable, "end.py", dump], cwd=tmp_path, check=False)
        assert ended.returncode == -signal.SIGTERM
        assert len(json.loads(dump.read_text())["entries"]) == 5_000_000


FORKING = """
import os, signal, sys, time
from pathlib import Path
from runtime.comm.recorder import keep_flight
keep_flight(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    time.sleep(30)
    os._exit(9)
os.kill(child, signal.SIGTERM)
assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
time.sleep(0.5)
assert not Path(sys.argv[1]).exists()
print("alive", flush=True)
if sys.argv[2] == "own":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


@pytest.mark.parametrize(("handler", "status"), [("none", -signal.SIGTERM), ("own", 7)])
def test_the_end_of_a_forked_child_is_not_ours_and_a_handler_of_the_program_stays(
    tmp_path: Path, handler: str, status: int
) -> None:
    (tmp_path / "fork.py").write_text(FORKING)
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "fork.py"), str(tmp_path / "flight_rank0"), handler],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ended.stdout == "alive\n", ended.stderr
    assert ended.returncode == status
    assert (tmp_path / "flight_rank0").exists() or handler == "own"
