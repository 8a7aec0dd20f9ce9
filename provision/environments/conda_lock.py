"""The door to conda-lock, which solves an environment's conda layer with a conda or mamba of this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from provision.edges.process import run
from provision.errors import CommandFailed

# All of them: conda-lock takes one that is not listed as absent. The reference is a node with Ubuntu 22.04;
# without __cuda, since GPU libraries come as wheels.
_VIRTUAL_PACKAGES = {"__unix": "0", "__linux": "5.10", "__glibc": "2.35"}
_ARCHSPECS = {"linux-64": "1 x86_64", "linux-aarch64": "1 aarch64"}


def solve(
    environment: Path,
    *,
    platform: str,
    channel: str,
    conda: Path,
    variables: Mapping[str, str],
    timeout_seconds: float,
) -> Mapping[str, Any]:
    """conda-lock's lock file for one platform, parsed.

    Args:
        environment: an environment.yml.
        channel: name or address of the one channel to solve from.
        conda: the solver: an executable conda, mamba or micromamba.

    Raises:
        CommandFailed: there is no solution, or the channel cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="clusterwright-") as scratch:
        folder = Path(scratch)
        virtual = folder / "virtual-packages.yml"
        virtual.write_text(
            yaml.safe_dump(
                {
                    "subdirs": {
                        platform: {"packages": {**_VIRTUAL_PACKAGES, "__archspec": _ARCHSPECS[platform]}}
                    }
                }
            )
        )
        lock = folder / "solved.conda-lock.yml"
        finished = run(
            [
                *(sys.executable, "-m", "conda_lock", "lock", "--conda", conda, "--platform", platform),
                *("--file", environment, "--channel", channel, "--lockfile", lock),
                *("--virtual-package-spec", virtual, "--no-mamba", "--no-micromamba"),
            ],
            timeout_seconds=timeout_seconds,
            env=variables,
            cwd=folder,
            check=False,
        )
        if finished.returncode != 0:
            raise CommandFailed(
                f"solve {environment} from {channel}",
                found=reason_of(finished.stdout + finished.stderr),
                fix="Correct the environment.yml, or name another --channel.",
            )
        solved: Mapping[str, Any] = yaml.safe_load(lock.read_text())
    return solved


def reason_of(output: str) -> str:
    """What the solver said, out of conda-lock's output: it prints the command and a traceback as well."""
    before, _, _ = output.partition("    Command: [")
    lines = [
        line for line in before.splitlines() if line.strip() and not line.startswith(("INFO:", "Locking"))
    ]
    return "\n".join(lines[-12:]) or "conda-lock gave no reason"
