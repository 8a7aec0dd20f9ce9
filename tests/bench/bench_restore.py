"""Seconds from power-on to a passed smoke test: two machines made from an image, against two from nothing.

    python -m tests.bench.bench_restore > table.md
Makes two labs of two nodes of its own, one after the other in the same run, and takes them down. Needs root.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.bench_provisioning import BIN, LABS, command

NOTHING, RESTORED = "bnothing", "brestore"
SUBNETS = {NOTHING: "10.77.215.0/24", RESTORED: "10.77.216.0/24"}


def power_on(*words: str | Path) -> float:
    """Runs a command of the lab; when its first node was switched on. What comes before makes its disks."""
    switched = 0.0
    with subprocess.Popen([BIN / "provision", "lab", *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            if line.startswith("start te") and not switched:
                switched = time.monotonic()
    assert process.returncode == 0
    assert switched
    return switched


def up(name: str, *words: str | Path) -> float:
    given = ("--name", name, "--subnet", SUBNETS[name], "--nodes", "2", "--disk-size", "8G", *words)
    return power_on("up", *given)


def from_nothing() -> float:
    switched = up(NOTHING)
    command(BIN / "ansible-playbook", "playbooks/site.yml", "-i", LABS / NOTHING / "inventory")
    return time.monotonic() - switched


def bake(output: Path) -> float:
    started = time.monotonic()
    words = ("-i", LABS / NOTHING / "inventory", "--output", output)
    command(BIN / "provision", "image", "bake", "te1", *words)
    return time.monotonic() - started


def site_with(secrets: Path) -> Path:
    """The new machines' inventory with the secrets of the site whose image they have."""
    site = Path(shutil.copytree(LABS / RESTORED / "inventory", secrets.parent / "site", symlinks=True))
    own = f"{LABS / RESTORED}/secrets"
    for path in site.rglob("*.yml"):
        path.write_text(path.read_text().replace(own, str(secrets)))
    return site


def restored(site: Path, *nodes: str) -> float:
    """Nobody does anything after power-on: the controller waits since before, and the machines call."""
    command(BIN / "provision", "lab", "power", "off", *nodes, "--name", RESTORED)
    told = ("--user-data", LABS / RESTORED / "user_data")
    command(BIN / "provision", "restore", "-i", site, *nodes, *told)
    words = [BIN / "provision", "restore", "-i", site, *nodes]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        sys.stderr.write(waiting.stdout.readline())  # it listens
        with ThreadPoolExecutor(1) as pool:
            switching = pool.submit(power_on, "reset", *nodes, "--name", RESTORED)
            for line in waiting.stdout:
                sys.stderr.write(line)
            ended = time.monotonic()
            switched = switching.result()
    assert waiting.returncode == 0
    return ended - switched


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as place:
        image = Path(place) / "image"
        try:
            nothing = from_nothing()
            baking = bake(image)
            sizes = ", ".join(
                f"{path.name} {path.stat().st_size / 1e6:.0f} MB" for path in image.glob("*.zst")
            )
            secrets = Path(shutil.copytree(LABS / NOTHING / "secrets", Path(place) / "secrets"))
            command(BIN / "provision", "lab", "down", "--name", NOTHING)
            up(RESTORED, "--image", image)  # so that there is an inventory; each is a new machine again below
            site = site_with(secrets)
            again = restored(site, "te1", "te2")
            alone = restored(site, "te2")
        finally:
            for name in (NOTHING, RESTORED):
                command(BIN / "provision", "lab", "down", "--name", name)
    print("| two nodes, power-on to smoke test passed | s |\n|---|---:|")
    print(f"| from nothing, site.yml | {nothing:.1f} |\n| from the image, unattended | {again:.1f} |")
    print(f"| one of them again from the image, beside the other | {alone:.1f} |")
    print(f"\n{nothing / again:.2f} times as fast. Baking took {baking:.1f} s: {sizes}.")


if __name__ == "__main__":
    main()
