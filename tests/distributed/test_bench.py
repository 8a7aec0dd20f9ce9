"""The benchmark runs its contestants in one command and counts what they hold."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.edges.process import descendants

pytestmark = pytest.mark.distributed

# Bytes per parameter on each of two ranks while gradients accumulate, with fp32 masters and moments (12/2):
# at stage 1 whole weights and gradients in bf16 (4), at stage 2 whole weights and a shard of the gradients in
# bf16 (2 + 2/2), at stage 3 only that shard, in fp32 (4/2).
HELD = {("clusterwright", 1): 10.0, ("clusterwright", 2): 9.0, ("clusterwright", 3): 8.0, ("fsdp2", 3): 8.0}


@pytest.mark.parametrize("stages", ["3", pytest.param("1,2", marks=pytest.mark.long)])
def test_what_each_contestant_holds_is_what_its_stage_keeps(stages: str, tmp_path: Path) -> None:
    result = tmp_path / "bench.json"
    words = ("--peers", "fsdp2", "--stages", stages, "--rounds", "1", "--width", "128", "--depth", "4")
    words += ("--steps", "1")
    words += ("--vocabulary", "64", "--sequence", "128", "--micro-batch", "2")  # so many that losses agree
    subprocess.run(
        [sys.executable, "-m", "runtime", "bench", "zero", *words, "--json", str(result)],
        check=True,
        timeout=300,
    )
    rows = json.loads(result.read_text())["rows"]
    held = {(row["contestant"]["engine"], row["contestant"]["stage"]): row for row in rows}

    expected_of = {one: size for one, size in HELD.items() if str(one[1]) in stages}
    assert len(rows) >= len(expected_of) > 0
    for contestant, expected in expected_of.items():
        assert held[contestant]["state_bytes_per_parameter"] == pytest.approx(expected, rel=0.05), contestant
    losses = [row["loss"] for row in rows]
    assert max(losses) - min(losses) < 0.01 * min(losses)
    assert all(row["peak_bytes"] > 0 for row in rows)


def test_a_peer_that_cannot_run_is_named_with_what_it_said(tmp_path: Path) -> None:
    words = ("--peers", "deepspeed", "--stages", "1", "--rounds", "1", "--python", "deepspeed=/bin/false")
    failed = subprocess.run(
        [sys.executable, "-m", "runtime", "bench", "zero", *words, "--width", "64", "--depth", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert failed.returncode != 0
    assert "deepspeed, stage 1" in failed.stderr


def test_one_that_is_ended_leaves_no_rank_behind() -> None:
    words = ("--peers", "none", "--stages", "1", "--rounds", "1", "--steps", "100000", "--width", "64")
    bench = subprocess.Popen(
        [sys.executable, "-m", "runtime", "bench", "zero", *words, "--depth", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(ranks := [pid for pid in descendants(bench.pid) if b"bench.worker" in words_of(pid)]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.2)

    bench.terminate()

    assert bench.wait(30) == 128 + signal.SIGTERM
    assert [pid for pid in ranks if words_of(pid)] == []


def words_of(pid: int) -> bytes:
    """A process's command line; none where it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
