"""How long a save holds up training, beside it or in its way: same model, same run, alternating, medians.

Usage: python -m tests.bench.bench_checkpoint [--ranks N] [--width W] [--saves K] [--folder DIR] > table.md
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import nn
from torch.nn import functional

import runtime
from runtime.train.engine import Engine
from tests.distributed.launching import free_port

WAYS = {False: "in the way", True: "beside"}
Seconds = dict[str, list[float]]


class Model(nn.Module):
    """Square layers: all of its time and bytes are in matrices."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + functional.gelu(layer(x))
        return x.square().mean()


def engine_for(options: argparse.Namespace, beside: bool) -> Engine:
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": 3},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "checkpoint": {"async_save": beside, "keep_last": 1},
    }
    model = Model(options.width, options.layers)
    return runtime.initialize(model=model, config=config, blocks=[nn.Linear])[0]


def step(engine: Engine, width: int) -> None:
    engine.backward(engine(torch.ones(4, width)))
    engine.step()


def timed(seconds: list[float], act: object, *arguments: object) -> None:
    """Appends the time of the slowest rank."""
    dist.barrier()
    started = time.perf_counter()
    act(*arguments)  # type: ignore[operator]
    took = torch.tensor(time.perf_counter() - started)
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    seconds.append(took.item())


def measure(options: argparse.Namespace, folder: Path) -> Seconds:
    """Alternates the two ways; leaves out the first save of each, which makes folders, groups, buffers."""
    engines = {beside: engine_for(options, beside) for beside in WAYS}
    found: Seconds = {name: [] for name in (*WAYS.values(), "until committed", "step", "step beside a save")}
    for number in range(options.saves + 1):
        for beside, name in WAYS.items():
            engine = engines[beside]
            timed(found["step"], step, engine, options.width)
            timed(found[name], engine.save_checkpoint, folder / name.replace(" ", "_"))
            if beside:
                timed(found["step beside a save"], step, engine, options.width)
                timed(found["until committed"], engine.wait_for_checkpoint)
        if dist.get_rank() == 0:
            print(f"save {number} of {options.saves}", file=sys.stderr)
    return {name: seconds[1:] for name, seconds in found.items()}


def be_rank(rank: int, options: argparse.Namespace, folder: Path, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(options.ranks),
        "LOCAL_WORLD_SIZE": str(options.ranks),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    torch.set_num_threads(1)
    seconds = measure(options, folder)
    if rank == 0:
        show(seconds, options)
    dist.destroy_process_group()


def show(seconds: Seconds, options: argparse.Namespace) -> None:
    size = 12 * options.layers * options.width * (options.width + 1)
    print(
        f"{options.ranks} ranks, {size / 1e6:.0f} MB a checkpoint, {options.saves} saves each way, medians\n"
    )
    print("| | seconds | smallest to largest |\n|---|---:|---:|")
    for name, found in seconds.items():
        print(f"| {name} | {statistics.median(found):.3f} | {min(found):.3f} to {max(found):.3f} |")
    ways = [statistics.median(seconds[name]) for name in WAYS.values()]
    print(f"\nStall beside the training over the time in its way: {ways[1] / ways[0]:.3f}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--saves", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the checkpoints go; a temporary folder else")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_checkpoint.", dir=options.folder))
    try:
        processes.spawn(be_rank, (options, folder, free_port()), nprocs=options.ranks)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
