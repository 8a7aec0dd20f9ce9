"""What one node more costs a cluster of 4 and one of 8: seconds, and ssh operations on each machine.

    python -m tests.bench.bench_node_add > table.md
Makes a lab of nine nodes of its own and takes it down. Needs root.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from provision.lab import record
from provision.lab.layout import folder_of
from tests.bench.bench_provisioning import BIN, LABS, command, site
from tests.lab.conftest import COUNTING_SSH

LAB, SUBNET = "bnode", "10.77.219.0/24"
SIZES = (4, 8)


def hosts_of(full: str, count: int) -> str:
    """The inventory's file with its first `count` nodes."""
    lines = full.splitlines(keepends=True)
    nodes = [number for number, line in enumerate(lines) if line.strip().startswith("te")]
    return "".join(line for number, line in enumerate(lines) if number not in nodes[count:])


def add(inventory: Path, name: str, folder: Path) -> tuple[float, Counter[str]]:
    """Seconds of `provision node add`, and how often ssh was called, by machine."""
    log, ssh = folder / "log", folder / "ssh"
    log.write_text("")
    ssh.write_text(COUNTING_SSH.format(log=log))
    ssh.chmod(0o755)
    lab = record.load(folder_of(LAB))
    assert lab is not None
    addresses = {node.address: node.name for node in lab.nodes}
    address = next(address for address, node in addresses.items() if node == name)
    words = ("node", "add", name, "--address", address, "-i", inventory, "--json")
    said = command(BIN / "provision", *words, env={"ANSIBLE_SSH_EXECUTABLE": str(ssh)})
    return json.loads(said)["seconds"], Counter(addresses[word] for word in log.read_text().split())


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            command(BIN / "provision", "lab", "down", "--name", LAB)
            up = ("lab", "up", "--name", LAB, "--subnet", SUBNET, "--nodes", str(max(SIZES) + 1))
            command(BIN / "provision", *up, "--disk-size", "6G")
            full = (LABS / LAB / "inventory" / "hosts.yml").read_text()
            inventory = folder / "site"
            shutil.copytree(LABS / LAB / "inventory", inventory, symlinks=True)
            for size in SIZES:
                (inventory / "hosts.yml").write_text(hosts_of(full, size))
                whole = site(inventory).seconds
                name = f"te{size + 1}"
                seconds, calls = add(inventory, name, folder)
                old = [calls[f"te{number}"] for number in range(1, size + 1)]
                rows.append((size, seconds, calls[name], max(old), sum(old), whole))
        finally:
            command(BIN / "provision", "lab", "down", "--name", LAB)
    print(
        "| nodes before | node add, s | ssh calls to the new node | to each old one, at most | to all old |"
    )
    print("|---:|---:|---:|---:|---:|")
    for size, seconds, new, most, total, _ in rows:
        print(f"| {size} | {seconds:.1f} | {new} | {most} | {total} |")
    print("\nsite.yml before it:", ", ".join(f"{size} nodes {whole:.0f} s" for size, *_, whole in rows))


if __name__ == "__main__":
    main()
