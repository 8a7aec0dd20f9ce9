"""The benchmark runs its contestants in one command and counts what they hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.distributed

# Bytes per parameter on each of two ranks while gradients accumulate, with fp32 masters and moments (12/2):
# at stage 1 whole weights and gradients in bf16 (4), at stage 2 whole weights and a shard of the gradients in
# bf16 (2 + 2/2), at stage 3 only that shard, in fp32 (4/2).
HELD = {("clusterwright", 1): 10.0, ("clusterwright", 2): 9.0, ("clusterwright", 3): 8.0, ("fsdp2", 3): 8.0}


def test_what_each_contestant_holds_is_what_its_stage_keeps(tmp_path: Path) -> None:
    result = tmp_path / "bench.json"
    words = ("--peers", "fsdp2", "--rounds", "1", "--width", "128", "--depth", "4", "--steps", "1")
    words += ("--vocabulary", "64", "--sequence", "128", "--micro-batch", "2")  # so many that losses agree
    subprocess.run(
        [sys.executable, "-m", "runtime", "bench", "zero", *words, "--json", str(result)],
        check=True,
        timeout=300,
    )
    rows = json.loads(result.read_text())["rows"]
    held = {(row["contestant"]["engine"], row["contestant"]["stage"]): row for row in rows}

    for contestant, expected in HELD.items():
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
