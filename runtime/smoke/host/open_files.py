"""How many files a process may open."""

from __future__ import annotations

from runtime.smoke.host.registry import Findings, HostCheck, Nodes

# A rank opens sockets to each peer, files of data and shared memory; 1024 is what Linux gives without asking.
_LEAST = 1024
_FIX = "Run the role host_tuning (limits.conf: nofile), then log in again."


def _judge(nodes: Nodes) -> Findings:
    for host, seen in nodes.surveys.items():
        if 0 <= seen.open_files < _LEAST:
            found = f"a process may open {seen.open_files} files there; ranks need {_LEAST} at least"
            yield nodes.finding("open files", host, found, _FIX)


CHECK = HostCheck(
    id="host.open-files",
    names=("open files",),
    place=180,
    judge=_judge,
    evidence=lambda nodes: f"{min(seen.open_files for seen in nodes.surveys.values())} at least",
)
