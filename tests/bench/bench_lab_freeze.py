"""Seconds until a converged lab is frozen, and until it is back and proven, by its number of nodes.

Usage: python -m tests.bench.bench_lab_freeze [--nodes 2 4 8] > table.md
Makes a lab of its own for each number and takes it down; ends where site.yml changes something of what
came back, where its smoke test fails, or where anything of the lab stays. Needs root and the lab's packages.
"""

from __future__ import annotations

import argparse
import os
import time

from tests.bench.bench_provisioning import BIN, LABS, command, site
from tests.lab.traces import traces

NAME = "frozen"
LAB = ("--name", NAME)


def timed(*words: str) -> float:
    started = time.monotonic()
    command(BIN / "provision", "lab", *words)
    return time.monotonic() - started


def measured(nodes: int) -> list[float]:
    before = traces(NAME)
    try:
        up = timed("up", *LAB, "--subnet", "10.77.211.0/24", "--nodes", str(nodes))
        first = site(LABS / NAME / "inventory")
        frozen = timed("freeze", NAME, *LAB)
        timed("down", *LAB)
        back = timed("up", *LAB, "--from", NAME)
        again = site(LABS / NAME / "inventory")
        if again.changed:
            raise SystemExit(f"site.yml changed what came back: {again.changed} tasks")
    finally:
        down = timed("down", *LAB)
        command(BIN / "provision", "lab", "snapshot", "remove", NAME)
    if left := traces(NAME) - before:
        raise SystemExit(f"left behind: {sorted(left)}")
    return [up, first.seconds, frozen, back, again.seconds, down]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 4, 8])
    options = parser.parse_args()
    print("| nodes | up | site.yml | freeze | up --from | site.yml, changed=0 | down | load |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for nodes in options.nodes:
        seconds = " | ".join(f"{one:.1f}" for one in measured(nodes))
        print(f"| {nodes} | {seconds} | {os.getloadavg()[0]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
