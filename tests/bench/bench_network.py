"""Bandwidth on shaped links, and what the scripts of today miss on broken ones, beside our smoke test.

Usage: python -m tests.bench.bench_network [--lab NAME] > table.md
Needs root and a lab of four nodes on which site.yml has run (`make demo` leaves one); gives it back healthy.
"""

from __future__ import annotations

import argparse
import base64
import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from provision.commands.which_lab import existing
from tests.lab.conftest import LabUnderTest, provision
from tests.lab.jobs import python, smoke

HERE = Path(__file__).parent
FOLDER = "/tmp/cw_bench"
# Ethernet, IP and TCP headers with time stamps take 66 of each 1514 bytes that a shaper counts.
PAYLOAD_SHARE = 1448 / 1514
RATES = {"200mbit": 200e6 / 8, "1gbit": 1e9 / 8}
FAULTS = (
    ("nothing",),
    ("slow-send", "te2"),
    ("slow-receive", "te2"),
    ("packet-loss", "te2"),
    ("mtu-hole", "te2"),
    ("firewall-peer", "te2", "te3"),
    ("firewall-ports", "te2"),
    ("wrong-hosts", "te2", "te3"),
    ("loopback-name", "te2"),
    ("other-torch", "te2"),
    ("changed-file", "te2"),
    ("link-down", "te2"),
)
# People wait longer: gloo's own limit is 30 minutes.
PATIENCE_SECONDS = 30


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def script(lab: LabUnderTest, name: str) -> tuple[str, float]:
    """How a script of today ends over all nodes, and its seconds."""
    port = 29600
    leader = lab.address("te1")

    def one(number: int) -> tuple[int, str]:
        words = (
            f"cd {FOLDER} && GLOO_SOCKET_IFNAME=eth0 timeout -k 5 {PATIENCE_SECONDS} "
            f"{python(lab)} -m torch.distributed.run "
            f"--nnodes {len(lab.nodes)} --node-rank {number} --nproc-per-node 1 "
            f"--master-addr {leader} --master-port {port} {name}"
        )
        ended = lab.run(lab.nodes[number], words, timeout_seconds=PATIENCE_SECONDS + 30, check=False)
        return ended.returncode, ended.stdout

    started = time.monotonic()
    with ThreadPoolExecutor(len(lab.nodes)) as pool:
        ended = list(pool.map(one, range(len(lab.nodes))))
    seconds = time.monotonic() - started
    rates = re.findall(r"0 <-> (\d): (\d+) MB/s", ended[0][1])
    figures = ", ".join(f"{rate}" for _, rate in rates)
    if all(status == 0 for status, _ in ended):
        return f"passes{f' ({figures} MB/s)' if figures else ''}", seconds
    hangs = all(status in (124, 137) for status, _ in ended if status != 0)
    return ("hangs" if hangs else "ends with errors"), seconds


def ours(lab: LabUnderTest) -> tuple[str, float]:
    """The verdict of our test and whom it names."""
    found = smoke(lab, "--timeout", "10", "--max-bytes", "1048576", timeout_seconds=240)
    named = sorted(
        {
            f"{c['where']} ({c['id']})"
            for c in found.result["checks"]
            if c["verdict"] in ("fail", "inconclusive")
        }
    )
    return f"{found.result['verdict']}{': ' if named else ''}{'; '.join(named)}", found.seconds


def shaped(lab: LabUnderTest, rate: str) -> tuple[list[float], float]:
    """Every pair's bandwidth and the all-reduce's busbw, both over what TCP can carry of the rate."""
    for node in lab.nodes:
        lab.provision("shape", node, "--rate", rate)
    try:
        result: dict[str, Any] = smoke(
            lab, "--sizes", "16777216", "--timeout", "60", timeout_seconds=240
        ).result
    finally:
        for node in lab.nodes:
            lab.provision("shape", node, "--clear")
    limit = RATES[rate] * PAYLOAD_SHARE
    (bus,) = [o["busbw_gb_s"] for o in result["operations"] if o["step"] == "all-reduce"]
    return [pair["bytes_per_s"] / limit for pair in result["pairs"]], bus * 1e9 / limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", default="lab")
    options = parser.parse_args()
    lab = LabUnderTest(lab=existing(options.lab))
    for name in ("one_float.py", "send_recv.py"):
        text = base64.b64encode((HERE / name).read_bytes()).decode()
        lab.out_of_all(f"mkdir -p {FOLDER} && echo {text} | base64 -d > {FOLDER}/{name}")

    print("| links | pairs, over what TCP can carry: lowest, median, highest | busbw of 16 MiB, likewise |")
    print("|---|---|---:|")
    for rate in RATES:
        say(f"shaped to {rate}")
        pairs, bus = shaped(lab, rate)
        spread = f"{min(pairs):.3f}, {statistics.median(pairs):.3f}, {max(pairs):.3f}"
        print(f"| {rate} | {spread} | {bus:.2f} |", flush=True)

    print("\n| fault | ours | s | all-reduce of one float | s | send/recv of 1,000,000 floats | s |")
    print("|---|---|---:|---|---:|---|---:|")
    for kind, *where in FAULTS:
        say(f"{kind} {' '.join(where)}")
        if where:
            provision("lab", "fault", "inject", kind, *where, "--name", lab.name)
        try:
            columns = [ours(lab), script(lab, "one_float.py"), script(lab, "send_recv.py")]
        finally:
            if where:
                provision("lab", "fault", "clear", "--name", lab.name)
        cells = " | ".join(f"{words} | {seconds:.0f}" for words, seconds in columns)
        print(f"| {kind} {' '.join(where)} | {cells} |", flush=True)
    lab.out_of_all(f"rm -rf {FOLDER}")


if __name__ == "__main__":
    main()
