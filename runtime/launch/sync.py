"""Brings the working folder to the same place on the other nodes of a job, by rsync over the nodes' own ssh.

Nothing is deleted there, and what is replaced is kept in the job's folder. What .gitignore names stays here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runtime.edges import addresses
from runtime.edges.process import Ended, complete
from runtime.errors import BadInput, NodesNotReady
from runtime.job.argv import ssh_words, target_of
from runtime.job.hostfile import Host
from runtime.job.spec import Job
from runtime.terminal import printable

# Code is small; what is larger is data, which has ways of its own.
MOST_BYTES = 1 << 30
REPLACED = "replaced"
_AT_ONCE = 8
_TIMEOUT_SECONDS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What one node was lacking: files by their length in bytes."""

    host: str
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def bring(job: Job, *, ssh_config: str = "") -> tuple[Brought, ...]:
    """Makes the job's working folder on every other node hold what it holds here.

    Raises:
        BadInput: the folder is no place of a program, or holds more than a GiB that a node lacks.
        NodesNotReady: a node could not be reached or written to; each is named, the others have it.
    """
    folder = Path(job.cwd)
    _check_place(folder)
    others = [node.host for node in job.nodes if not addresses.is_own(addresses.resolve(node.host.name))]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        lacking = list(pool.map(lambda host: _look(job, host, ssh_config), others))
        _refuse_failed(job, [one for one in lacking if isinstance(one, str)])
        found = tuple(one for one in lacking if isinstance(one, Brought))
        _check_size(folder, found)
        needed = [host for host, one in zip(others, found, strict=True) if one.files]
        failed = pool.map(lambda host: _send(job, host, ssh_config), needed)
        _refuse_failed(job, [problem for problem in failed if problem])
    return found


def _check_place(folder: Path) -> None:
    home = Path(os.path.expanduser("~"))
    if len(folder.parts) < 3 or home.is_relative_to(folder):
        raise BadInput(
            f"bring {folder} to the other nodes (--sync)",
            found="it is no folder of one program: it holds your home, or much of the system",
            fix="Put the program into a folder of its own, and start the job there.",
        )


def _check_size(folder: Path, found: Sequence[Brought]) -> None:
    largest = max(found, key=lambda one: one.bytes, default=None)
    if largest is None or largest.bytes <= MOST_BYTES:
        return
    sizes = sorted(((length >> 20, name) for name, length in largest.files.items()), reverse=True)[:3]
    told = ", ".join(f"{printable(name)} ({mebibytes} MiB)" for mebibytes, name in sizes if mebibytes)
    raise BadInput(
        f"bring {folder} to the other nodes (--sync)",
        found=f"{largest.host} lacks {largest.bytes >> 20} MiB of it, more than {MOST_BYTES >> 20}: {told}",
        fix="Name in .gitignore what the program does not need there; models go by `provision model fetch`.",
    )


def _look(job: Job, host: Host, ssh_config: str) -> Brought | str:
    """What a node lacks, or why that is not known."""
    done = _rsync(job, host, ssh_config, "--dry-run", "--out-format=%l %n")
    if done.status != 0:
        return _problem(host, done)
    lines = (line.partition(" ") for line in done.out.splitlines())
    files = {name: int(length) for length, _, name in lines if length.isdigit() and not name.endswith("/")}
    return Brought(host=host.name, files=files)


def _send(job: Job, host: Host, ssh_config: str) -> str:
    """Sends it; what went wrong, or nothing."""
    done = _rsync(job, host, ssh_config, "--mkpath")
    return _problem(host, done) if done.status != 0 else ""


def _rsync(job: Job, host: Host, ssh_config: str, *words: str) -> Ended:
    own_jobs = [f"--exclude=/{Path(job.job_path).relative_to(job.cwd).parts[0]}/"] if _within(job) else []
    argv = [
        "rsync",
        "--archive",
        "--no-owner",
        "--no-group",
        "--backup",
        f"--backup-dir={job.job_path}/{REPLACED}",
        "--exclude=.git/",
        "--exclude=__pycache__/",
        *own_jobs,
        "--filter=:- .gitignore",
        "--rsync-path=umask 077; rsync",  # the job's folder, where that begins here, is its user's alone
        f"--rsh={shlex.join(ssh_words(ssh_config))}",
        *words,
        f"{job.cwd}/",
        f"{target_of(host)}:{job.cwd}/",
    ]
    return complete(argv, timeout_seconds=_TIMEOUT_SECONDS)


def _within(job: Job) -> bool:
    return Path(job.job_path).is_relative_to(job.cwd)


def _problem(host: Host, done: Ended) -> str:
    said = [line for line in done.errors.splitlines() if line.strip()]
    first = printable(said[0]) if said else f"rsync ended with status {done.status}"
    return f"{host.name}: {first}"


def _refuse_failed(job: Job, problems: Sequence[str]) -> None:
    if problems:
        raise NodesNotReady(
            f"bring {job.cwd} to the other nodes (--sync)",
            found="\n  " + "\n  ".join(problems),
            fix="Nothing was started. Mend these nodes, or leave them out with --exclude.",
        )
