"""Seconds per role on fresh nodes, first and second run, beside the same steps by hand over serial ssh.

Usage: python -m tests.bench.bench_provisioning [--lab NAME] [--subnet A.B.C.0/24] [--nodes N] > table.md
Makes a lab of its own, three times fresh, and takes it down. Needs root and the lab's Debian packages.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LABS = Path("/var/lib/clusterwright/labs")
# profile_roles prints "role ---------- 12.34s" for each role after the recap.
ROLE_LINE = re.compile(r"^(?P<role>[a-z_.]+) -+ (?P<seconds>[\d.]+)s$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of site.yml: its seconds, those of each role, and how many tasks of nodes changed something."""

    seconds: float
    roles: dict[str, float]
    changed: int


def command(*words: str | Path, env: dict[str, str] | None = None, folder: Path = ROOT) -> str:
    """Runs to the end, shows its progress on stderr, returns its standard output."""
    process = subprocess.Popen(
        [str(word) for word in words],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        sys.stderr.write(line)
    if process.wait() != 0:
        raise SystemExit(f"{words} ended with status {process.returncode}")
    return "".join(lines)


def site(inventory: Path, *, binaries: Path = BIN, folder: Path = ROOT) -> Run:
    """site.yml of the project in `folder`, on the nodes of `inventory`."""
    started = time.monotonic()
    words = (binaries / "ansible-playbook", "playbooks/site.yml", "-i", inventory)
    printed = command(*words, env={"ANSIBLE_NOCOLOR": "1"}, folder=folder)
    matches = [found for line in printed.splitlines() if (found := ROLE_LINE.match(line))]
    return Run(
        seconds=time.monotonic() - started,
        roles={found["role"]: float(found["seconds"]) for found in matches},
        changed=sum(map(int, re.findall(r"^te\d+ .*\bchanged=(\d+)", printed, re.M))),
    )


def by_hand(lab: str, subnet: str, nodes: int) -> dict[str, float]:
    """Seconds per step of the serial script, and of the whole."""
    prefix = subnet.rsplit(".", 1)[0]
    started = time.monotonic()
    printed = command(
        ROOT / "tests/bench/by_hand.sh",
        LABS / lab,
        f"http://{prefix}.1:8080",
        ROOT / "envs",
        *[f"te{i}={prefix}.{10 + i}" for i in range(1, nodes + 1)],
    )
    rows = dict(line.split("\t") for line in printed.splitlines() if "\t" in line)
    steps = {name: float(seconds) for name, seconds in rows.items()}
    return {**steps, "whole run": time.monotonic() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", default="bench")
    parser.add_argument("--subnet", default="10.77.210.0/24")
    parser.add_argument("--nodes", type=int, default=4)
    options = parser.parse_args()
    lab = ("--name", options.lab)
    up = (BIN / "provision", "lab", "up", *lab, "--subnet", options.subnet, "--nodes", str(options.nodes))
    command(*up)
    try:
        first, second = (site(LABS / options.lab / "inventory") for _ in range(2))
        command(BIN / "provision", "lab", "down", *lab)
        command(*up)
        peer = by_hand(options.lab, options.subnet, options.nodes)
    finally:
        command(BIN / "provision", "lab", "down", *lab)
    print("| role | first run (s) | second run (s) | by hand, serial ssh (s) |\n|---|---:|---:|---:|")
    for role, seconds in first.roles.items():
        hand = f"{peer[role]:.1f}" if role in peer else "-"
        print(f"| {role} | {seconds:.1f} | {second.roles.get(role, 0.0):.1f} | {hand} |")
    print(f"| whole run | {first.seconds:.1f} | {second.seconds:.1f} | {peer['whole run']:.1f} |")
    print(f"\nSecond run over first: {second.seconds / first.seconds:.2f}.")
    print(f"By hand over first run: {peer['whole run'] / first.seconds:.2f}.")


if __name__ == "__main__":
    main()
