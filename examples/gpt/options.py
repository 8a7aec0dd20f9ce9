"""Options that the plain script and the sharded one share."""

from __future__ import annotations

import argparse
from pathlib import Path

TEXT = Path("/usr/share/common-licenses/GPL-3")  # real text that every Debian and Ubuntu has


def parser(description: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--text", type=Path, default=TEXT, help="what to train on")
    options.add_argument("--steps", type=int, default=25, help="optimizer steps")
    options.add_argument(
        "--seed", type=int, default=42, help="of the weights; the data's is the configuration's"
    )
    options.add_argument("--metrics", type=Path, default=Path("metrics.jsonl"), help="file to write")
    options.add_argument("--layers", type=int, default=3)
    options.add_argument("--width", type=int, default=96)
    return options
