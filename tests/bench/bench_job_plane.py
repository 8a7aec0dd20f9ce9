"""What the firewall of jobs, or the mesh, costs: starts, all-reduces, checkpoints, with and without in turns.

Usage: python -m tests.bench.bench_job_plane [--mesh] [--lab NAME] [--starts N] [--rounds N] [--mib M] > table
Needs root and a lab after `site.yml -e cluster_user=root` (ranks switch the firewall); its first two nodes
take part, and are as they were at the end.
With --mesh, of a lab that has one, N times a start and a job of some rounds with it, and without it: then
what the nodes know of each other (names, host keys, addresses of jobs) says the addresses below.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import re
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


# What site.yml wrote of the nodes' addresses, and of the interface that carries them.
ADDRESSED = (
    "/etc/hosts /etc/clusterwright/cluster.json /etc/clusterwright/job.env /etc/ssh/ssh_known_hosts "
    "/etc/ssh/ssh_config.d/10-clusterwright.conf /home/trainer/.ssh/authorized_keys "
    "/usr/local/lib/clusterwright/job_firewall_nodes.nft"
)


def renamings(lab: LabUnderTest) -> dict[str, str]:
    """What stands for what without the mesh: addresses, and the interface's name."""
    described = json.loads(lab.out("te1", "cat /etc/clusterwright/cluster.json"))
    inside = {node["name"]: node["address"] for node in described["nodes"]}
    below = json.loads(lab.out("te1", f"ip -json route get {lab.address('te2')}"))[0]["dev"]
    over = json.loads(lab.out("te1", f"ip -json route get {inside['te2']}"))[0]["dev"]
    return {over: below, **{inside[name]: lab.address(name) for name in inside}}


def switched(lab: LabUnderTest, renamed: dict[str, str]) -> None:
    """Has the nodes know each other by other addresses."""
    rules = [f"-e 's/\\b{re.escape(old)}\\b/{new}/g'" for old, new in renamed.items()]
    lab.out_of_all(f"sed -i {' '.join(rules)} {ADDRESSED} && systemctl reload {UNIT}")


def over_the_mesh(lab: LabUnderTest, include: str, options: argparse.Namespace) -> Found:
    """Each number from a job of its own: what carries a job cannot be changed under it."""
    renamed = renamings(lab)
    back = {new: old for old, new in renamed.items()}
    found: Found = {state: {"start": [], "busbw": [], "checkpoint": []} for state in VERBS}
    start = f"cd /; {START.format(include)} --no-python true"
    timed = f"s=$(date +%s.%N); {start} >/dev/null && echo $(date +%s.%N) - $s"
    words = (
        f"{FOLDER}/{WORKER.name} {options.rounds} {options.mib << 20} {FOLDER}/checkpoints"  # a folder a job
    )
    for number in range(options.starts):
        for state in VERBS if number % 2 else reversed(VERBS):
            try:
                if state == "off":
                    switched(lab, renamed)
                ended, began = map(float, lab.out("te1", timed).split(" - "))
                job = f"cd /; {START.format(include)} {words}{number}{state} {state}"
                inside = json.loads(lab.run("te1", job, timeout_seconds=3000).stdout.splitlines()[-1])
            finally:
                if state == "off":
                    switched(lab, back)
            found[state]["start"].append(ended - began)
            for name, values in inside[state].items():
                found[state][name] += values
        print(f"{number + 1} of {options.starts}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
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
    parser.add_argument("--mesh", action="store_true")
    parser.add_argument("--lab", default="lab")
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--mib", type=int, default=16)
    options = parser.parse_args()
    lab = LabUnderTest(lab=existing(options.lab))
    include = "@".join(lab.nodes[:2])
    text = base64.b64encode(WORKER.read_bytes()).decode()
    make = f"mkdir -p {FOLDER} && chmod 777 {FOLDER}" if options.mesh else f"mkdir -p {FOLDER}"
    lab.out_of_all(f"{make} && echo {text} | base64 -d > {FOLDER}/{WORKER.name}")
    if options.mesh:
        try:
            show(over_the_mesh(lab, include, options))
        finally:
            lab.out_of_all(f"rm -rf {FOLDER}")
        return
    try:
        inside = within_a_job(lab, include, options.rounds, options.mib << 20)
        started = starts(lab, include, options.starts)
    finally:
        lab.out_of_all(f"systemctl start {UNIT}; rm -rf {FOLDER}")
    show({state: {**started[state], **inside[state]} for state in VERBS})


if __name__ == "__main__":
    main()
