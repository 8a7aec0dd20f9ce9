"""One line of JSON for each step, and the comparison of two such files.

python examples/gpt/metrics.py metrics.jsonl other.jsonl --tolerance 1e-4
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path


class Metrics:
    """Prints and writes what a step showed; silent on every rank but the first."""

    def __init__(self, path: Path, *, samples_per_step: int, speak: bool) -> None:
        self.samples, self.speak = samples_per_step, speak
        self.file = path.open("w", encoding="utf-8") if speak else None
        self.last = time.perf_counter()

    def step(self, number: int, *, loss: float, grad_norm: float, lr: float) -> None:
        now = time.perf_counter()
        rate, self.last = self.samples / (now - self.last), now
        if self.file is None:
            return
        line = {"step": number, "loss": loss, "grad_norm": grad_norm, "lr": lr, "samples_per_second": rate}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        print(
            f"step {number:4d}  loss {loss:.5f}  grad norm {grad_norm:.3f}  lr {lr:.2e}  {rate:.1f} samples/s"
        )


def read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def largest_difference(ours: list[dict[str, float]], others: list[dict[str, float]]) -> tuple[float, int]:
    """The largest relative difference of the losses, and the step where it is."""
    pairs = zip(ours, others, strict=True)
    return max((abs(a["loss"] - b["loss"]) / abs(b["loss"]), int(a["step"])) for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares the losses of two runs, step by step.")
    parser.add_argument("ours", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference")
    arguments = parser.parse_args()
    ours, others = read(arguments.ours), read(arguments.other)
    if not ours or len(ours) != len(others):
        print(f"red: {len(ours)} steps against {len(others)}")
        return 1
    difference, step = largest_difference(ours, others)
    fell = ours[-1]["loss"] < ours[0]["loss"]
    equal = difference <= arguments.tolerance
    print(
        f"{'green' if equal and fell else 'red'}: {len(ours)} steps, loss {ours[0]['loss']:.4f} -> "
        f"{ours[-1]['loss']:.4f}, largest relative difference {difference:.1e} (step {step}), "
        f"tolerance {arguments.tolerance:.0e}"
    )
    return 0 if equal and fell else 1


if __name__ == "__main__":
    sys.exit(main())
