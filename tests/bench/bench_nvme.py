"""Bandwidth of the optimizer's files as a ratio of dd's in one folder: `python -m tests.bench.bench_nvme`.

Both move the same bytes past the page cache (oflag=direct, iflag=direct), in turns, and medians are compared;
"step" is a whole step of AdamW against the time in which dd would read its moments and write them again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from runtime.zero.config.training import Adam
from runtime.zero.offload.adam import DiskAdam
from runtime.zero.offload.files import StateFile, page_aligned
from runtime.zero.offload.transfers import Transfer, Transfers

MIB = 1024 * 1024
GROUP_BYTES = 64 * MIB  # what a sub-group of the largest size has of each moment


def main() -> None:
    """Prints one row each for writing and reading, in MB/s of 10^6 bytes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path, nargs="?", default=Path("/var/tmp"))
    options.add_argument("--mebibytes", type=int, default=1024, help="size of the file")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=8, help="aio.queue_depth")
    options.add_argument("--block-bytes", type=int, default=MIB, help="aio.block_size, and dd's bs")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    size = given.mebibytes * MIB // GROUP_BYTES * GROUP_BYTES
    found = measure(given.folder, size, given.rounds, given.threads, given.block_bytes)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'':8}{'dd MB/s':>10}{'ours MB/s':>11}{'ratio':>7}")
    for name in ("write", "read", "step"):
        dd, ours = found[f"dd {name}"], found[f"ours {name}"]
        print(f"{name:8}{dd / 1e6:10.0f}{ours / 1e6:11.0f}{ours / dd:7.2f}")


def measure(folder: Path, size: int, rounds: int, threads: int, block_bytes: int) -> dict[str, float]:
    """Medians of bytes per second."""
    dd_file = folder / "bench_nvme.dd"
    file, transfers = StateFile(folder, size), Transfers(threads=threads, block_bytes=block_bytes)
    blocks = [f"bs={block_bytes}", f"count={size // block_bytes}"]
    buffers = [page_aligned(GROUP_BYTES) for _ in range(2)]
    for buffer in buffers:
        buffer[:] = bytes(range(256)) * (GROUP_BYTES // 256)
    runs: dict[str, Callable[[], None]] = {
        "dd write": lambda: dd("if=/dev/zero", f"of={dd_file}", "oflag=direct", "conv=notrunc", *blocks),
        "ours write": lambda: stream(transfers.write, file, buffers, size),
        "dd read": lambda: dd(f"if={dd_file}", "of=/dev/null", "iflag=direct", *blocks),
        "ours read": lambda: stream(transfers.read, file, buffers, size),
    }
    optimizer = adam(folder, size, threads, block_bytes)
    runs["ours step"] = lambda: step(optimizer)
    if not file.direct:
        print("the file system refuses O_DIRECT: ours goes through the page cache", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    try:
        for turn in range(rounds + 1):  # the first one warms up
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
            print(f"round {turn} of {rounds}", file=sys.stderr)
    finally:
        dd_file.unlink(missing_ok=True)
        transfers.close()
    found = {name: size / statistics.median(measured) for name, measured in seconds.items()}
    # A step reads everything and writes it again; dd would do one after the other.
    found["ours step"] *= 2
    found["dd step"] = 2 / (1 / found["dd read"] + 1 / found["dd write"])
    return found


def adam(folder: Path, size: int, threads: int, block_bytes: int) -> DiskAdam:
    """An optimizer with two moments of `size` bytes together; masters and gradients are in memory."""
    parameter = torch.nn.Parameter(torch.zeros(size // 8))
    parameter.grad = torch.ones_like(parameter)
    return DiskAdam(
        [{"params": [parameter]}],
        Adam(type="AdamW"),
        folder=folder,
        sub_group_size=GROUP_BYTES // 4,
        buffer_count=4,
        transfers=Transfers(threads=threads, block_bytes=block_bytes),
    )


def step(optimizer: DiskAdam) -> None:
    optimizer.step()


def stream(start: Callable[..., Transfer], file: StateFile, buffers: list[memoryview], size: int) -> None:
    """The whole file, two groups in flight, as the optimizer's step moves it."""
    flying: list[Transfer] = []
    for number, offset in enumerate(range(0, size, GROUP_BYTES)):
        if number >= len(buffers):
            flying[number - len(buffers)].wait()
        flying.append(start(file, buffers[number % len(buffers)], offset))
    for transfer in flying[-len(buffers) :]:
        transfer.wait()


def dd(*words: str) -> None:
    subprocess.run(["dd", *words, "status=none"], check=True)


if __name__ == "__main__":
    main()
