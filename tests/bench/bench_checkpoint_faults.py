"""The same faults against checkpoints of this project, of bare DCP and of DeepSpeed: what each then loads.

Usage: python -m tests.bench.bench_checkpoint_faults [--systems clusterwright,dcp] > table.md

In an environment with DeepSpeed: --systems deepspeed. Root, for a small disk of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.bench.checkpoint_worker import SYSTEMS, be_rank
from tests.distributed.launching import free_port

MODULES = {"clusterwright": "runtime.train.build", "deepspeed": "deepspeed"}
_SERVER = multiprocessing.get_context("forkserver")
Started = list[tuple[BaseProcess, Path]]
JOB_SECONDS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the ranks of a job ended, and what they wrote; a status is None where a rank hung."""

    statuses: list[int | None]
    texts: list[str]

    def error(self) -> str:
        """The first rank's error, without folders' names."""
        lines = [line for text in self.texts for line in text.splitlines() if line.startswith("FAILED ")]
        said = lines[0].removeprefix("FAILED ") if lines else f"ended with {self.statuses}"
        return re.sub(r"/\S*/", "", said)[:140]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One system under test, in a folder of its own."""

    system: str
    folder: Path

    def run(self, ranks: int = 2, **job: Any) -> Ended:
        """Runs a job to its end, or for JOB_SECONDS."""
        return self.wait(self.start(ranks, **job))

    def start(self, ranks: int, *, name: str = "job", seed: int = 0, **job: Any) -> Started:
        truths = self.folder / "truths"
        truths.mkdir(exist_ok=True)
        job |= {"system": self.system, "name": name, "seed": seed, "truths": str(truths)}
        started, port = [], str(free_port())
        for rank in range(ranks):
            log = Path(tempfile.mkstemp(dir=self.folder, suffix=".log")[1])
            words = (variables_of(rank, ranks, port), job, str(log))
            process = _SERVER.Process(target=be_rank, args=words, daemon=True)
            process.start()
            started.append((process, log))
        return started

    def wait(self, started: Started) -> Ended:
        deadline = time.monotonic() + JOB_SECONDS
        statuses: list[int | None] = []
        for process, _ in started:
            process.join(max(0.0, deadline - time.monotonic()))
            statuses.append(process.exitcode)
            process.kill()
        return Ended(statuses=statuses, texts=[log.read_text(errors="replace") for _, log in started])

    def save(self, root: Path, *saves: tuple[str, int], **job: Any) -> Ended:
        return self.run(root=str(root), saves=saves, **job)

    def verdict(self, root: Path, *, ranks: int = 2, wanted: str = "step4") -> str:
        """What a new job then loads."""
        ended = self.run(ranks, root=str(root))
        line = next((t for t in ended.texts[0].splitlines() if t.startswith("LOADED ")), None)
        if line is None:
            return "hangs" if None in ended.statuses else f"error: {ended.error()}"
        found = json.loads(line.removeprefix("LOADED "))
        if not found["loaded"]:
            return "**begins anew, silently**"
        if not found["weights"]:
            return "**loads wrong weights, silently**"
        number = found["weights"][0].rpartition(" ")[2]
        if f"step{number}" == wanted:
            return f"right (step {number})"
        return f"falls back to step {number}" + (", says so" if "NOT whole" in "".join(ended.texts) else "")


def variables_of(rank: int, ranks: int, port: str) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def two_saves(bench: Bench, name: str) -> Path:
    """A folder with the checkpoints of steps 3 and 4, of which a copy is struck."""
    base = bench.folder / "base"
    if not base.exists():
        ended = bench.save(base, ("step3", 3), ("step4", 4))
        assert ended.statuses == [0, 0], ended.texts
    return Path(shutil.copytree(base, bench.folder / name))


def shard(root: Path) -> Path:
    """The largest file of rank 1 in the newest checkpoint."""
    newest = [path for path in (root / "step4").iterdir() if "__1_" in path.name or "rank_1_" in path.name]
    return max(newest, key=lambda path: path.stat().st_size)


def killed(bench: Bench) -> str:
    root = bench.folder / "killed"
    bench.save(root, ("step3", 3), ("step4", 4), killed=1)
    return bench.verdict(root, wanted="step3")


def killed_overwriting(bench: Bench) -> str:
    root = bench.folder / "overwritten"
    bench.save(root, ("same", 3), ("same", 4), killed=1)
    return bench.verdict(root, wanted="step3")


def flipped(bench: Bench) -> str:
    root = two_saves(bench, "flipped")
    path = shard(root)
    content = bytearray(path.read_bytes())
    start = inside_a_tensor(content)
    content[start : start + 64] = bytes(byte ^ 0x40 for byte in content[start : start + 64])
    path.write_bytes(content)
    return bench.verdict(root)


def inside_a_tensor(content: bytearray) -> int:
    """Where, from the middle on, 64 bytes are as mixed as numbers are, and names or padding are not."""
    middle = len(content) // 2
    return next(at for at in range(middle, len(content) - 64) if len(set(content[at : at + 64])) > 45)


def truncated(bench: Bench) -> str:
    root = two_saves(bench, "truncated")
    os.truncate(shard(root), shard(root).stat().st_size // 2)
    return bench.verdict(root)


def deleted(bench: Bench) -> str:
    root = two_saves(bench, "deleted")
    shard(root).unlink()
    return bench.verdict(root)


def full_disk(bench: Bench) -> str:
    """A disk that holds one checkpoint and a half."""
    size = sum(file.stat().st_size for file in (two_saves(bench, "sized") / "step4").iterdir())
    root = bench.folder / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 2}", "none", root], check=True)
    try:
        ended = bench.save(root, ("step3", 3), ("step4", 4))
        said = "the save hangs" if None in ended.statuses else "the save fails"
        said = "**the save says nothing**" if ended.statuses == [0, 0] else said
        return f"{said}; then {bench.verdict(root, wanted='step3')}"
    finally:
        subprocess.run(["umount", root], check=True)


def two_jobs(bench: Bench) -> str:
    root = bench.folder / "shared"
    saves = [(f"step{number}", number) for number in range(1, 5)]
    jobs = [bench.start(2, root=str(root), saves=saves, name=f"job {seed}", seed=seed) for seed in range(2)]
    ended = [bench.wait(job) for job in jobs]
    refused = [one.error() for one in ended if any(one.statuses)]
    told = "one job is refused" if len(refused) == 1 else f"{len(refused)} of 2 jobs fail"
    return f"{told}; then {bench.verdict(root)}"


def other_size(bench: Bench) -> str:
    return bench.verdict(two_saves(bench, "three"), ranks=3)


FAULTS: dict[str, Callable[[Bench], str]] = {
    "rank 1 killed while it writes step 4": killed,
    "the same, over an older checkpoint of that name": killed_overwriting,
    "64 bytes of a shard flipped": flipped,
    "a shard cut in half": truncated,
    "a shard deleted": deleted,
    "a full disk at step 4": full_disk,
    "two jobs save into one folder": two_jobs,
    "loaded by 3 ranks instead of 2": other_size,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--systems", default="clusterwright,dcp", help=f"of {', '.join(SYSTEMS)}")
    given = options.parse_args()
    systems = given.systems.split(",")
    os.environ["DS_ACCELERATOR"] = "cpu"
    _SERVER.set_forkserver_preload(
        [MODULES.get(system, "torch.distributed.checkpoint") for system in systems]
    )
    rows: dict[str, list[str]] = {name: [] for name in FAULTS}
    for system in systems:
        with tempfile.TemporaryDirectory(prefix="bench_checkpoint_faults.") as folder:
            bench = Bench(system=system, folder=Path(folder))
            for name, fault in FAULTS.items():
                began = time.monotonic()
                rows[name].append(fault(bench))
                took = time.monotonic() - began
                print(f"{system}: {name}: {rows[name][-1]} ({took:.0f} s)", file=sys.stderr)
    print(f"| | {' | '.join(systems)} |\n|---{'|---' * len(systems)}|")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
