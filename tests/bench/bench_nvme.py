"""Bandwidth of the optimizer's files as a ratio of fio's or dd's: `python -m tests.bench.bench_nvme`.

Both move the same bytes past the page cache, in turns, and medians are compared: fio (Debian's package) with
as many requests in flight as ours, by its own clock; dd with one. "step" is a whole step of AdamW against the
time in which the peer would read its moments and write them again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from runtime.train.config.training import Adam
from runtime.train.offload.adam import DiskAdam
from runtime.train.offload.files import StateFile, Transfer, Transfers, page_aligned

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
    options.add_argument("--peer", choices=PEERS, default="fio")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    size = given.mebibytes * MIB // GROUP_BYTES * GROUP_BYTES
    found = measure(given.peer, given.folder, size, given.rounds, given.threads, given.block_bytes)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'':8}{f'{given.peer} MB/s':>10}{'ours MB/s':>11}{'ratio':>7}")
    for name in ("write", "read", "step"):
        theirs, ours = found[f"peer {name}"], found[f"ours {name}"]
        print(f"{name:8}{theirs / 1e6:10.0f}{ours / 1e6:11.0f}{ours / theirs:7.2f}")


def measure(
    peer: str, folder: Path, size: int, rounds: int, threads: int, block_bytes: int
) -> dict[str, float]:
    """Medians of bytes per second."""
    peers_file = folder / "bench_nvme.peer"
    file, transfers = StateFile(folder, size), Transfers(threads=threads, block_bytes=block_bytes)
    theirs = partial(PEERS[peer], peers_file, size, block_bytes, threads)
    buffers = [page_aligned(GROUP_BYTES) for _ in range(2)]
    for buffer in buffers:
        buffer[:] = bytes(range(256)) * (GROUP_BYTES // 256)
    optimizer = adam(folder, size, threads, block_bytes)
    runs: dict[str, Callable[[], float]] = {
        "peer write": lambda: theirs("write"),
        "ours write": lambda: timed(lambda: stream(transfers.write, file, buffers, size)),
        "peer read": lambda: theirs("read"),
        "ours read": lambda: timed(lambda: stream(transfers.read, file, buffers, size)),
        "ours step": lambda: timed(optimizer.step),
    }
    if not file.direct:
        print("the file system refuses O_DIRECT: ours goes through the page cache", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    try:
        for turn in range(rounds + 1):  # the first one warms up
            for name in runs if turn % 2 else reversed(runs):  # what comes first finds an idle disk
                took = runs[name]()
                if turn:
                    seconds[name].append(took)
            print(f"round {turn} of {rounds}", file=sys.stderr)
    finally:
        peers_file.unlink(missing_ok=True)
        transfers.close()
    found = {name: size / statistics.median(measured) for name, measured in seconds.items()}
    # A step reads everything and writes it again; the peer would do one after the other.
    found["ours step"] *= 2
    found["peer step"] = 2 / (1 / found["peer read"] + 1 / found["peer write"])
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


def timed(act: Callable[[], object]) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def stream(start: Callable[..., Transfer], file: StateFile, buffers: list[memoryview], size: int) -> None:
    """The whole file, two groups in flight, as the optimizer's step moves it."""
    flying: list[Transfer] = []
    for number, offset in enumerate(range(0, size, GROUP_BYTES)):
        if number >= len(buffers):
            flying[number - len(buffers)].wait()
        flying.append(start(file, buffers[number % len(buffers)], offset))
    for transfer in flying[-len(buffers) :]:
        transfer.wait()


def dd(file: Path, size: int, block_bytes: int, threads: int, way: str) -> float:
    """Seconds of dd, which keeps one request in flight."""
    ends = [f"if={file}", "of=/dev/null", "iflag=direct"]
    if way == "write":
        ends = ["if=/dev/zero", f"of={file}", "oflag=direct", "conv=notrunc"]
    words = ["dd", *ends, f"bs={block_bytes}", f"count={size // block_bytes}", "status=none"]
    return timed(lambda: subprocess.run(words, check=True))


def fio(file: Path, size: int, block_bytes: int, threads: int, way: str) -> float:
    """Seconds that fio says the transfer took, without its start."""
    settings = {"name": "peer", "filename": file, "rw": way, "size": size, "bs": block_bytes}
    settings |= {"iodepth": threads, "ioengine": "libaio", "direct": 1, "output-format": "json"}
    words = ["fio", *(f"--{name}={value}" for name, value in settings.items())]
    answer = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return float(size / json.loads(answer)["jobs"][0][way]["bw_bytes"])


PEERS = {"fio": fio, "dd": dd}


if __name__ == "__main__":
    main()
