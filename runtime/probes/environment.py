"""The environment of jobs on a node: what the role conda_env wrote of it, and whether it is that still."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.edges.process import complete

# Where the role conda_env puts what tells whether an environment is as it was installed.
DIGEST_SCRIPT = Path("/usr/local/lib/clusterwright/environment_digest.py")
# It looks at the status of every file (0.3 s for 18,000), and reads those that were touched since.
_SECONDS = 15.0
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """`digest` of what lies there, "" for none; `changed` says what is not as it was recorded."""

    digest: str
    changed: str = ""


def described(config_path: Path) -> dict[str, Any]:
    """What the role conda_env wrote; nothing where it did not."""
    try:
        found = json.loads((config_path / "environment.json").read_text(errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def environment_digest(config_path: Path) -> str:
    """The digest that the role wrote; empty where it did not."""
    return str(described(config_path).get("digest", ""))


def compared(config_path: Path, *, script: Path = DIGEST_SCRIPT) -> Environment:
    """The environment as it is now. Where the role left nothing to compare with, what it wrote counts."""
    written = described(config_path)
    digest, prefix = str(written.get("digest", "")), str(written.get("prefix", ""))
    if not digest or not prefix or not script.is_file():
        return Environment(digest=digest)
    words = [sys.executable, str(script), "--prefix", prefix, "--verify"]
    ended = complete(words, timeout_seconds=_SECONDS)
    try:
        found = json.loads(ended.out)
        now, files = str(found["digest"]), list(found["differences"])
        packages = _packages(found["added"], found["gone"])
        said = _words(packages, len(packages)) if packages else _words(files, int(found["different"]))
        return Environment(digest=now, changed="" if now == digest else said)
    except (ValueError, KeyError, TypeError, AttributeError):
        why = (ended.errors.strip().splitlines() or [f"status {ended.status}"])[-1][-200:]
        return Environment(digest="", changed=f"its files cannot be compared ({why})")


def _packages(added: dict[str, str], gone: dict[str, str]) -> list[str]:
    return [
        *(f"{name} {version} was installed" for name, version in added.items()),
        *(f"{name} {version} was removed" for name, version in gone.items() if name not in added),
    ]


def _words(named: list[str], count: int) -> str:
    more = count - len(named[:_SHOWN])
    return ", ".join([*named[:_SHOWN], *([f"and {more} more"] if more else [])])
