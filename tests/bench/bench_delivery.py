"""A model over links of 200 Mbit/s: our delivery beside a copy to all nodes at once; what the source sends.

Usage: python -m tests.bench.bench_delivery [--nodes 2,4,8] [--megabytes 150] > table.md
Needs root; makes a lab of its own for each number of nodes, and takes it down.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from provision.lab import argv
from tests.lab.conftest import LabUnderTest, made, playbook, provision

RATE, BITS = "200mbit", 200e6
SUBNET = "10.77.234.0/24"


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def wire_bytes(lab: LabUnderTest) -> int:
    """What this machine has sent to the nodes, with every header."""
    return int(Path(f"/sys/class/net/{lab.lab.bridge}/statistics/tx_bytes").read_text())


def shaped(lab: LabUnderTest) -> None:
    """The cable of each node and of this machine."""
    playbook(lab, "--tags", "node_access,host_names,job_user,ssh_trust,data_disk")
    for node in lab.nodes:
        lab.provision("shape", node, "--rate", RATE)
    words = f"tc qdisc replace dev {lab.lab.bridge} root tbf rate {RATE} burst 256k latency 50ms"
    subprocess.run(words.split(), check=True)


def to_all_at_once(lab: LabUnderTest, folder: Path) -> float:
    """tar over ssh to every node: the first copy of rsync or scp sends the same bytes."""

    def one(name: str) -> None:
        node = next(node for node in lab.lab.nodes if node.name == name)
        words = argv.ssh(lab.lab, node, ["mkdir -p /data/copy && tar -C /data/copy -xf -"])
        with subprocess.Popen(["tar", "-C", str(folder), "-cf", "-", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(words, stdin=tar.stdout, check=True)

    started = time.monotonic()
    with ThreadPoolExecutor(len(lab.nodes)) as pool:
        list(pool.map(one, lab.nodes))
    return time.monotonic() - started


def row(lab: LabUnderTest, folder: Path, size: int) -> str:
    before = wire_bytes(lab)
    found = json.loads(provision("model", "fetch", str(folder), "-i", str(lab.inventory), "--json").stdout)
    middle = wire_bytes(lab)
    seconds = to_all_at_once(lab, folder)
    after = wire_bytes(lab)
    return (
        f"| {len(lab.nodes)} | {found['seconds']:.1f} s | {found['source_bytes'] / size:.3f} "
        f"| {(middle - before) / size:.3f} | {seconds:.1f} s | {(after - middle) / size:.2f} "
        f"| {size * 8 / BITS:.1f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="2,4,8")
    parser.add_argument("--megabytes", type=int, default=150)
    given = parser.parse_args()
    heads = ("nodes", "delivery", "source sends (archives)", "on its wire")
    print(f"| {' | '.join((*heads, 'to all at once', 'on its wire', 'the link takes'))} |\n{'|---' * 7}|")
    for count in map(int, given.nodes.split(",")):
        say(f"a lab of {count} nodes")
        for lab in made("bdeliv", SUBNET, count):
            shaped(lab)
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "model"
                folder.mkdir()
                (folder / "model.safetensors").write_bytes(os.urandom(given.megabytes * 1_000_000))
                print(row(lab, folder, given.megabytes * 1_000_000), flush=True)


if __name__ == "__main__":
    main()
