"""The script that nodes run, asked for the digest of an environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[3] / "playbooks" / "roles" / "conda_env" / "files" / "environment_digest.py"
PACKAGES = Path("lib/python3.11/site-packages")


def digest(prefix: Path, *words: str, status: int = 0) -> dict[str, Any]:
    finished = subprocess.run(
        [sys.executable, "-E", "-s", SCRIPT, "--prefix", prefix, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == status, finished.stderr
    report: dict[str, Any] = json.loads(finished.stdout)
    return report


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def conda_record(prefix: Path, **other: object) -> None:
    record = {"name": "python", "version": "3.11.7", "build": "0", "sha256": "aa", **other}
    write(prefix / "conda-meta" / "python-3.11.7-0.json", json.dumps(record))
