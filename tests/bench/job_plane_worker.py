"""A rank of bench_job_plane: all-reduces and checkpoints, the firewall of jobs on and off in turns.

Usage, under zerorun: job_plane_worker.py ROUNDS BYTES FOLDER [STATE]; rank 0 prints {state: {name: [...]}}. A
STATE is the one in which the nodes are anyway, and nothing is switched; without one it runs as root.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import runtime

UNIT = "clusterwright-job-firewall"
VERBS = {"on": "start", "off": "stop"}
WIDTH = 512
REDUCTIONS = 5


def slowest_seconds(act: Callable[[], object]) -> float:
    """The time of the rank that takes longest."""
    dist.barrier()
    started = time.perf_counter()
    act()
    took = torch.tensor(time.perf_counter() - started)
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    return took.item()


def main() -> None:
    rounds, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    as_it_is = sys.argv[4:]
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(4)))
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "checkpoint": {"keep_last": 1},
    }
    engine = runtime.initialize(model=model, config=config, blocks=[nn.Linear])[0]
    engine.backward(engine(torch.ones(1, WIDTH)).square().mean())
    engine.step()
    tensor = torch.zeros(size // 4)

    def reduce() -> None:
        for _ in range(REDUCTIONS):
            dist.all_reduce(tensor)

    world = dist.get_world_size()
    moved = REDUCTIONS * size * 2 * (world - 1) / world
    found: dict[str, dict[str, list[float]]] = {
        state: {"busbw": [], "checkpoint": []} for state in as_it_is or VERBS
    }
    for number in range(-1, rounds):  # the first makes folders, groups and buffers
        for state in as_it_is or (VERBS if number % 2 else reversed(VERBS)):
            if not as_it_is:
                # Otherwise systemd refuses more than five starts in ten seconds (systemd.unit(5)).
                subprocess.run(["systemctl", "reset-failed", UNIT], stderr=subprocess.DEVNULL, check=False)
                subprocess.run(["systemctl", VERBS[state], UNIT], check=True)
            reduce()  # what the switch itself costs is over
            busbw = moved / slowest_seconds(reduce)
            checkpoint = slowest_seconds(lambda: engine.save_checkpoint(folder))
            if number >= 0:
                found[state]["busbw"].append(busbw)
                found[state]["checkpoint"].append(checkpoint)
    if not as_it_is:
        subprocess.run(["systemctl", "start", UNIT], check=True)
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
