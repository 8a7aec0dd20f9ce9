"""Healthy runs of the smoke test without a false alarm, and its seconds on a lab of so many nodes.

Usage: python -m tests.bench.bench_smoke healthy [--lab NAME] [--runs 30] [--busy 10]
       python -m tests.bench.bench_smoke time [--lab NAME] [--rounds 3] [--nodes 4,8,16]
Needs root and a lab on which site.yml has run (`make demo` leaves one).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from provision.commands.which_lab import existing
from tests.lab.conftest import LabUnderTest
from tests.lab.jobs import Smoke, smoke

# As the role smoke_test asks for in the lab, whose nodes share this machine's memory bandwidth.
WHOLE = ("--max-bytes", "1048576")


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """This machine's last core has another program on it until the end of the block."""
    if not wanted:
        yield
        return
    core = max(os.sched_getaffinity(0))
    spinning = subprocess.Popen(
        ["taskset", "--cpu-list", str(core), sys.executable, "-c", "while True: pass"]
    )
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def healthy(lab: LabUnderTest, *, runs: int, busy: int) -> None:
    """Whole tests in a row; the busy ones are spread among the others."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    alarms = 0
    for number in range(runs):
        loaded = number * busy // runs != (number + 1) * busy // runs
        with busy_core(loaded):
            ended = smoke(lab, *WHOLE, timeout_seconds=240)
        seconds[loaded].append(ended.seconds)
        alarms += ended.result["verdict"] != "pass"
        print(f"run {number + 1}{' (busy)' if loaded else ''}: {ended.result['verdict']}", file=sys.stderr)
        if ended.result["verdict"] != "pass":
            print(ended.told(), file=sys.stderr)
    print("| healthy runs | with a busy core | false alarms | median s | median s with a busy core |")
    print("|---:|---:|---:|---:|---:|")
    quiet, loud = (f"{median(seconds[key]):.1f}" if seconds[key] else "-" for key in (False, True))
    print(f"| {runs} | {busy} | {alarms} | {quiet} | {loud} |")


def row(lab: LabUnderTest, words: tuple[str, ...], rounds: int) -> str:
    """Medians of the test's own seconds: all, nodes, sockets."""
    ended: list[Smoke] = [smoke(lab, *words, timeout_seconds=300) for _ in range(rounds)]
    assert all(one.result["verdict"] == "pass" for one in ended), ended[-1].told()
    parts = [[one.result["phases"].get(name, 0.0) for one in ended] for name in ("nodes", "sockets")]
    whole = median(one.result["seconds"] for one in ended)
    return f"{whole:.1f} | {median(parts[0]):.1f} | {median(parts[1]):.1f}"


def time_of(lab: LabUnderTest, *, rounds: int, counts: list[int]) -> None:
    """A row for the first so many nodes of the lab."""
    print("| nodes | rounds of pairs | --quick s | nodes s | sockets s | whole s | nodes s | sockets s |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for count in counts:
        some = ("--include", "@".join(lab.nodes[:count]))
        quick, whole = (row(lab, (*words, *some), rounds) for words in (("--quick",), WHOLE))
        print(f"| {count} | {count - 1} | {quick} | {whole} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["healthy", "time"])
    parser.add_argument("--lab", default="lab")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--busy", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", default="4")
    options = parser.parse_args()
    lab = LabUnderTest(lab=existing(options.lab))
    if options.what == "healthy":
        healthy(lab, runs=options.runs, busy=options.busy)
    else:
        time_of(lab, rounds=options.rounds, counts=[int(count) for count in options.nodes.split(",")])


if __name__ == "__main__":
    main()
