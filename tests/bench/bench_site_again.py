"""A first run of site.yml and those that change nothing, beside an earlier commit, in turns.

Usage: python -m tests.bench.bench_site_again [--earlier COMMIT] [--firsts 2] [--runs 5] > table.md
Each commit has a lab of four nodes and a virtual environment of its own (`make controller`); bytecode is kept
for both. Needs root, the lab's Debian packages and the history of this project.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.bench_provisioning import BIN, LABS, ROOT, Run, command, site


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A commit of this project in a folder, and the lab that is its own."""

    commit: str
    folder: Path
    lab: str
    subnet: str

    def make(self) -> None:
        archive = self.folder.with_suffix(".tar")
        command("git", "archive", "--output", archive, self.commit)
        shutil.unpack_archive(archive, self.folder, filter="data")
        command("make", f"PYTHON={sys.executable}", "controller", folder=self.folder)

    def provision(self, *words: str) -> None:
        command(self.folder / ".venv/bin/provision", "lab", *words, "--name", self.lab, folder=self.folder)

    def site(self) -> Run:
        binaries = self.folder / ".venv/bin"
        return site(LABS / self.lab / "inventory", binaries=binaries, folder=self.folder)


def show(what: str, before: list[Run], since: list[Run]) -> None:
    both = [[run.seconds for run in runs] for runs in (before, since)]
    middle = [median(seconds) for seconds in both]
    each = [" ".join(f"{one:.1f}" for one in seconds) for seconds in both]
    changes = ", ".join(str({run.changed for run in runs}) for runs in (before, since))
    print(
        f"| {what} | {middle[0]:.1f} ({each[0]}) | {middle[1]:.1f} ({each[1]}) | {middle[1] / middle[0]:.2f}"
        f" | {changes} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--earlier", default="8a83588")
    parser.add_argument("--firsts", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    now = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        before, since = (
            Project(commit=commit, folder=Path(folder) / commit, lab=lab, subnet=f"10.77.{number}.0/24")
            for commit, lab, number in ((options.earlier, "earlier", 215), (now, "since", 216))
        )
        for project in (before, since):
            project.make()
        command(BIN / "provision", "lab", "mirror")
        firsts: dict[Project, list[Run]] = {before: [], since: []}
        again: dict[Project, list[Run]] = {before: [], since: []}
        try:
            for number in range(options.firsts):
                for project in (before, since) if number % 2 == 0 else (since, before):
                    project.provision("down")
                    project.provision("up", "--subnet", project.subnet, "--nodes", "4")
                    firsts[project].append(project.site())
            for number in range(options.runs):
                for project in (before, since) if number % 2 == 0 else (since, before):
                    again[project].append(project.site())
                print(f"{number + 1}: load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        finally:
            for project in (before, since):
                project.provision("down")
    print(f"Load at the end: {os.getloadavg()[0]:.0f}.\n")
    print(f"| four nodes, seconds | {before.commit} | {since.commit} | ratio | changed tasks |")
    print("|---|---:|---:|---:|---|")
    show("first run", firsts[before], firsts[since])
    show("runs after it", again[before], again[since])


if __name__ == "__main__":
    main()
