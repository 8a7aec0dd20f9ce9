"""What the firewall of jobs costs: a job's start, all-reduces and checkpoints, with it on and off in turns.

Usage: python -m tests.bench.bench_job_plane [--lab NAME] [--starts N] [--rounds N] [--mib M] > table.md
Needs root and a lab after site.yml; its first two nodes take part. The firewall is on again at the end.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import statistics
import sys
from pathlib import Path

from provision.commands.which_lab import existing
from tests.bench.job_plane_worker import UNIT, VERBS
from tests.lab.conftest import LabUnderTest

WORKER = Path(__file__).with_name("job_plane_worker.py")
FOLDER = "/tmp/cw_bench"
START = f"zerorun --no-gate --include {{}} --log-dir {FOLDER}/log"
Found = dict[str, dict[str, list[float]]]


def starts(lab: LabUnderTest, include: str, rounds: int) -> Found:
    """Seconds of jobs that do nothing, as their first node sees them."""
    found: Found = {state: {"start": []} for state in VERBS}
    command = f"cd /; {START.format(include)} --no-python true"
    timed = f"s=$(date +%s.%N); {command} >/dev/null && echo $(date +%s.%N) - $s"
    for number in range(-1, rounds):
        for state in VERBS if number % 2 else reversed(VERBS):
            lab.out_of_all(f"systemctl {VERBS[state]} {UNIT}")
            ended, began = map(float, lab.out("te1", timed).split(" - "))
            if number >= 0:
                found[state]["start"].append(ended - began)
        print(f"start {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return found


def within_a_job(lab: LabUnderTest, include: str, rounds: int, size: int) -> Found:
    """Bytes per second and seconds in one job, whose ranks switch the firewall of their nodes."""
    command = f"cd /; {START.format(include)} {FOLDER}/{WORKER.name} {rounds} {size} {FOLDER}/checkpoints"
    found: Found = json.loads(lab.run("te1", command, timeout_seconds=3000).stdout.splitlines()[-1])
    return found


def between(ratios: list[float]) -> tuple[float, float]:
    """Where the median of all such ratios lies, 19 times of 20: by the ranks of those that were measured."""
    ranks = sorted(ratios)
    reach = 0.98 * math.sqrt(len(ranks))
    return ranks[max(0, math.floor(len(ranks) / 2 - reach))], ranks[
        min(len(ranks) - 1, math.ceil(len(ranks) / 2 + reach))
    ]


def show(found: Found) -> None:
    print(f"Load at the end: {os.getloadavg()[0]:.0f}.\n")
    print(
        "| medians | with | without | with over without | the same, round by round: median, 95 % | rounds |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, unit, scale in (("start", "s", 1.0), ("busbw", "MB/s", 1e-6), ("checkpoint", "s", 1.0)):
        with_it, without = ([value * scale for value in found[state][name]] for state in VERBS)
        medians = [statistics.median(values) for values in (with_it, without)]
        ratios = [one / other for one, other in zip(with_it, without, strict=True)]
        lower, upper = between(ratios)
        print(
            f"| {name}, {unit} | {medians[0]:.4g} | {medians[1]:.4g} | {medians[0] / medians[1]:.3f} "
            f"| {statistics.median(ratios):.3f}, {lower:.3f} to {upper:.3f} | {len(ratios)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", default="lab")
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--mib", type=int, default=16)
    options = parser.parse_args()
    lab = LabUnderTest(lab=existing(options.lab))
    include = "@".join(lab.nodes[:2])
    text = base64.b64encode(WORKER.read_bytes()).decode()
    lab.out_of_all(f"mkdir -p {FOLDER} && echo {text} | base64 -d > {FOLDER}/{WORKER.name}")
    try:
        inside = within_a_job(lab, include, options.rounds, options.mib << 20)
        started = starts(lab, include, options.starts)
    finally:
        lab.out_of_all(f"systemctl start {UNIT}; rm -rf {FOLDER}")
    show({state: {**started[state], **inside[state]} for state in VERBS})


if __name__ == "__main__":
    main()
